"""The model, loaded while the input is fetched and planned.

Loading the libraries, starting the GPU and reading the weights take seconds in which the network and the decoder have
something to do as well; weights that have to be fetched first take longer. On a CPU, and where the host's memory is
short, the first come one after the other.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Self

import structlog

from restoration_runner import models
from restoration_runner.software import cpu_threads
from restoration_runner.task import JobContext, Task

if TYPE_CHECKING:
    from restoration_runner.models.restorer import Restorer

log = structlog.get_logger()

KERNEL_FOLDER = "TRITON_CACHE_DIR"
"""Where Triton looks for compiled kernels and leaves new ones; the Job sets it to a volume, if the profile has one."""
DRIVER = Path("/dev/nvidiactl")
"""There is a GPU, as far as can be said without loading what could use it."""


class ModelLoading:
    """Loads the model of a task once, on a thread of its own if `ahead` was called."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._coming: Future[Restorer] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Wait: a process that ends while the driver starts may crash, and its exit code would be lost."""
        self._task.model.give_up()
        self._pool.shutdown()

    def ahead(self) -> None:
        """Begin now, where that saves time. Errors are told to whoever asks for the restorer."""
        beside = pays(self._task.context)
        if not (beside or self._task.model.is_fetched) or self._task.has_all_segments():
            return
        self._task.model.begin()
        if beside:
            self._coming = self._pool.submit(self._load)

    def restorer(self) -> Restorer:
        """The loaded model; the thread that computes still has to make its GPU its own (`use_device`).

        Raises:
            RestorationError: `ModelInvalid` (another digest than promised, among others); see `models.load_restorer`.
        """
        return self._load() if self._coming is None else self._coming.result()

    def _load(self) -> Restorer:
        task = self._task
        check_kernel_folder()
        task.model.wait()
        with task.clock.step("model"), ThreadPoolExecutor(1, thread_name_prefix="digest") as pool:
            checked = pool.submit(task.model.check)
            try:
                return models.load_restorer(
                    task.model.folder,
                    device=task.context.device,
                    precision=task.request.model.precision,
                    threads=cpu_threads(),
                    path=task.context.path,
                    spare_host=task.context.memory_hint_mib is not None,
                )
            finally:
                checked.result()  # of two errors the one that says what is wrong with the folder as a whole


def check_kernel_folder() -> None:
    """Without the volume if nothing can be written to it: compiling takes seconds, and is no reason to fail."""
    folder = os.environ.get(KERNEL_FOLDER)
    if folder is None:
        return
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        is_writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError:
        is_writable = False
    if not is_writable:
        log.warning("compiled kernels cannot be kept: the folder cannot be written to", folder=folder)
        del os.environ[KERNEL_FOLDER]


def pays(context: JobContext) -> bool:
    """Whether to load the model beside other work."""
    on_gpu = context.device.startswith("cuda") or (context.device == "auto" and DRIVER.exists())
    return on_gpu and context.memory_hint_mib is None
