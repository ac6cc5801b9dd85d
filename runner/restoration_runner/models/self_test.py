"""Does this GPU compute what it should? Asked once, before the first frame.

Some releases of PyTorch and cuDNN compute 3-D convolutions of bf16 numbers wrongly and say nothing (pytorch#163539:
cuDNN 9.8 to 9.12, on large pictures), others avoid that by a way that takes a multiple of the memory and the time
(pytorch#166643: PyTorch 2.9 with cuDNN below 9.15). Faulty memory or a faulty card does the same. A small convolution,
an attention and a matrix product are compared with the CPU's, and versions that are known to be wrong on pictures
larger than a start can afford are refused by number.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from restoration_api.outcome import FailureReason
from restoration_runner.errors import RestorationError

LIMIT = {torch.float32: 1e-5, torch.bfloat16: 8e-3, torch.float16: 1e-3}
"""Relative L2: a few roundings of the type. A wrong kernel is off by everything."""
CHANNELS, FRAMES, SIDE = 64, 4, 20
"""Enough for the kernels that real sizes use, little for a CPU (0.1 TFLOP in all would be a second)."""

WRONG = (90800, 91300)
"""cuDNN versions, the first that is wrong and the first that is right again."""
SLOW_TORCH, RIGHT_CUDNN = (2, 9), 91500


def check_device(device: torch.device, dtype: torch.dtype) -> None:
    """Nothing on a CPU: it would be compared with itself.

    Raises:
        RestorationError: `GPUFault`, with what is wrong and the remedy.
    """
    if device.type != "cuda":
        return
    problem = known_problem(torch.__version__, torch.backends.cudnn.version())
    problem = problem or computed_problem(device, dtype)
    if problem:
        raise RestorationError(FailureReason.GPU_FAULT, f"{torch.cuda.get_device_name(device)}: {problem}")


def known_problem(torch_version: str, cudnn_version: int | None) -> str | None:
    """A sentence on versions that are known to be bad; None if they are not, or there is no cuDNN."""
    if cudnn_version is None:
        return "PyTorch finds no cuDNN, which the networks' convolutions need; use the runner's own image"
    if WRONG[0] <= cudnn_version < WRONG[1]:
        return (
            f"cuDNN {cudnn_version} computes large 3-D convolutions in bf16 wrongly; use the runner's own image, or "
            f"cuDNN {RIGHT_CUDNN} or later"
        )
    major, minor = (int(part) for part in torch_version.split(".")[:2])
    if (major, minor) == SLOW_TORCH and cudnn_version < RIGHT_CUDNN:
        return (
            f"PyTorch {torch_version} with cuDNN {cudnn_version} computes 3-D convolutions in many times the memory; "
            f"use the runner's own image, or cuDNN {RIGHT_CUDNN} or later"
        )
    return None


def computed_problem(device: torch.device, dtype: torch.dtype) -> str | None:
    """A sentence on the first operation whose result on `device` is not the CPU's."""
    for name, operation, inputs in _operations(dtype):
        expected = operation(*(tensor.float() for tensor in inputs))
        found = operation(*(tensor.to(device) for tensor in inputs)).float().cpu()
        error = ((found - expected).norm() / expected.norm()).item()
        if not error <= LIMIT[dtype]:  # also where it is not a number
            return (
                f"{name} in {str(dtype).removeprefix('torch.')} differs from the CPU's result by {error:.1%} (PyTorch "
                f"{torch.__version__}, cuDNN {torch.backends.cudnn.version()}); the GPU or these libraries are faulty: "
                "use another node, or the runner's own image"
            )
    return None


Operation = tuple[str, Callable[..., Tensor], tuple[Tensor, ...]]


def _operations(dtype: torch.dtype) -> Iterator[Operation]:
    """Name, operation and its inputs on the CPU, rounded to `dtype`."""
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    picture, kernel = draw(1, CHANNELS, FRAMES, SIDE, SIDE), draw(CHANNELS, CHANNELS, 3, 3, 3)
    yield "A 3-D convolution", F.conv3d, (picture, kernel)
    last = torch.channels_last_3d
    yield (
        "A 3-D convolution with channels last",
        F.conv3d,
        (picture.contiguous(memory_format=last), kernel.contiguous(memory_format=last)),
    )
    yield (
        "Attention",
        F.scaled_dot_product_attention,
        (draw(1, 4, 150, 128), draw(1, 4, 150, 128), draw(1, 4, 150, 128)),
    )
    yield "A matrix product", F.linear, (draw(300, 256), draw(320, 256))
