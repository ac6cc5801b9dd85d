"""What the two programs of kernel cases share: inputs, the same case without its kernels, and how errors are told.

The cases are programs of their own because Triton reads `TRITON_INTERPRET` when a kernel is defined.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from unittest import mock

import torch
from torch import Tensor

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Draw:
    """Random tensors, the same for both computations."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self._generator = torch.Generator().manual_seed(0)
        self.dtype = dtype

    def rows(self, *shape: int) -> Tensor:
        return self.vectors(*shape).to(self.dtype)

    def vectors(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator).to(DEVICE)

    def places(self, count: int, below: int) -> Tensor:
        return torch.randint(below, (count,), generator=self._generator).to(DEVICE, torch.int32)


Run = Callable[[Draw], list[Tensor]]


def by_fallback(run: Run, dtype: torch.dtype, modules: Sequence[ModuleType]) -> list[Tensor]:
    """The same with every kernel of `modules` replaced by its plain expression."""
    patches = [mock.patch.object(module, "takes", lambda *_: False) for module in modules]
    for patch in patches:
        patch.start()
    try:
        return run(Draw(dtype))
    finally:
        for patch in patches:
            patch.stop()


def error(found: Tensor, expected: Tensor, dtype: torch.dtype) -> float:
    """In units of the last place of the largest value."""
    difference = (found.double() - expected.double()).abs().max() / expected.double().abs().max()
    return float(difference / torch.finfo(dtype).eps)


def print_errors(cases: Iterator[tuple[str, torch.dtype, Run]], modules: Sequence[ModuleType]) -> None:
    """The largest error of each case, as JSON."""
    errors = {}
    for name, dtype, run in cases:
        pairs = zip(run(Draw(dtype)), by_fallback(run, dtype, modules), strict=True)
        errors[name] = max(error(a, b, dtype) for a, b in pairs)
    print(json.dumps({"device": str(DEVICE), "errors": errors}))


def errors_in_interpreter(program: str) -> dict[str, float]:
    """What that program of cases prints with every kernel in Triton's interpreter."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    errors: dict[str, float] = json.loads(done.stdout)["errors"]
    return errors
