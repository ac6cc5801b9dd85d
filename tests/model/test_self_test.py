"""A GPU that computes wrongly is refused with a sentence before the first frame."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from restoration_runner.models import self_test
from restoration_runner.models.self_test import LIMIT, check_device, computed_problem, known_problem

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("torch_version", "cudnn", "word"),
    [
        ("2.13.0+cu130", 91900, None),
        ("2.11.0+cu130", 91900, None),
        ("2.9.1+cu128", 91501, None),
        ("2.9.0+cu128", 91400, "memory"),
        ("2.9.1+cu128", 91002, "wrongly"),
        ("2.8.0+cu128", 90800, "wrongly"),
        ("2.8.0+cu128", 90701, None),
        ("2.10.0", 91299, "wrongly"),
        ("2.10.0a0+git1", 91300, None),
        ("2.13.0+cu130", None, "no cuDNN"),
    ],
)
def test_versions_known_to_be_bad(torch_version: str, cudnn: int | None, word: str | None) -> None:
    problem = known_problem(torch_version, cudnn)
    assert (problem is None) if word is None else (problem is not None and word in problem)


@pytest.mark.parametrize("dtype", LIMIT, ids=str)
def test_a_sound_device_passes(dtype: torch.dtype) -> None:
    """The CPU against itself: its 16-bit kernels are another implementation than its fp32 ones."""
    torch.set_num_threads(1)
    assert computed_problem(CPU, dtype) is None
    check_device(CPU, dtype)


def one_wrong_channel(x: Tensor, kernel: Tensor) -> Tensor:
    out = F.conv3d(x, kernel)
    out[:, 5] *= 1 if x.dtype is torch.float32 else 0.5
    return out


def not_a_number(x: Tensor, kernel: Tensor) -> Tensor:
    out = F.conv3d(x, kernel)
    return out if x.dtype is torch.float32 else out * float("nan")


@pytest.mark.parametrize("broken", [one_wrong_channel, not_a_number])
def test_a_wrong_kernel_is_named(monkeypatch: pytest.MonkeyPatch, broken: object) -> None:
    real = self_test._operations

    def replaced(dtype: torch.dtype) -> object:
        return ((name, broken if "channels last" in name else run, given) for name, run, given in real(dtype))

    monkeypatch.setattr(self_test, "_operations", replaced)
    problem = computed_problem(CPU, torch.bfloat16)
    assert problem is not None
    assert problem.startswith("A 3-D convolution with channels last in bfloat16 differs")
    assert "use another node" in problem
