"""Restoration models behind one seam: `restorer.py` says what a model can do, `load_restorer` gives one.

Nothing here loads torch before a model is loaded: whoever plans or assembles needs the description only.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from restoration_api.request import Precision
from restoration_runner.models.restorer import Capabilities, Restorer


def describe(folder: Path) -> Capabilities:
    """What the model in `folder` needs, without loading its weights.

    Raises:
        RestorationError: `ModelInvalid`.
    """
    from restoration_runner.models.seedvr2.description import read_description

    return read_description(folder).capabilities()


def load_restorer(
    folder: Path,
    *,
    device: str = "auto",
    precision: str = "FP32",
    threads: int | None = None,
    path: str | None = None,
    spare_host: bool = False,
) -> Restorer:
    """The model in `folder` on its device, ready to restore.

    device: `auto`, `cpu`, `cuda` or `cuda:N`. precision: a name of `restoration_api.request.Precision`.
    threads: CPU threads, pinned because results may depend on their number; None leaves it to PyTorch.
    path: which implementation of the networks computes, `plain` or `fast`; None leaves it to the machine: the fast one
        on a GPU, the plain one on a CPU.
    spare_host: take less of the host's memory, and more time; the results are the same.

    Raises:
        RestorationError: `ModelInvalid` names the file and what is wrong in it; `InvalidParameters` a precision or
            path that is not built; `GPUFault` a GPU that is not there or computes wrongly; `InsufficientGPUMemory` one
            that is too small.
    """
    # Here, because this package is also imported by programs that only want the protocol.
    from restoration_runner.models.device import WEIGHTS_DO_NOT_FIT, compute_dtype, device_faults, prepare_device
    from restoration_runner.models.seedvr2.folder import read_folder
    from restoration_runner.models.seedvr2.networks import parse_path
    from restoration_runner.models.seedvr2.restorer import SeedVr2Restorer
    from restoration_runner.models.self_test import check_device

    dtype, wished = compute_dtype(precision), parse_path(path)
    target = prepare_device(device, threads=threads, spare_host=spare_host)
    read = partial(read_folder, folder, device=target, dtype=dtype, fp8_weights=precision == Precision.FP8)
    with device_faults(WEIGHTS_DO_NOT_FIT), ThreadPoolExecutor(1, thread_name_prefix="self-test") as pool:
        tested = pool.submit(check_device, target, dtype)  # half a second, for libraries to be loaded
        try:
            model = read()
        finally:
            tested.result()
        return SeedVr2Restorer(model, device=target, dtype=dtype, path=wished, reload=read, spare_host=spare_host)
