"""What the checks of the numeric fixtures share: a case, the place where it is computed, and what counts as equal.

In fp32 a result must lie within the case's own `max_abs`, on a CPU and on a GPU alike. In 16 bits the yardstick is the
relative L2 error that the released code itself has in bf16, which the cases record; `LOW_PRECISION_SLACK` times that is
allowed, because rounding differs with the order of operations. Rules without a network (sizes, angles, colour transfer)
are computed in fp32 by the product whatever the precision, so their limits stay.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors.torch import load_file
from torch import Tensor

from restoration_runner.models.seedvr2.half import activation_dtype

CPU = torch.device("cpu")
LOW_PRECISION_SLACK = 2.0

Implementation = Literal["plain", "fast"]
IMPLEMENTATIONS: tuple[Implementation, ...] = get_args(Implementation)


@dataclass(frozen=True)
class Place:
    """Where, in what and by which implementation the networks compute; dtype is that of their weights."""

    device: torch.device = CPU
    dtype: torch.dtype = torch.float32
    path: Implementation = "plain"

    @property
    def is_exact(self) -> bool:
        return self.dtype is torch.float32

    @property
    def activations(self) -> torch.dtype:
        return activation_dtype(self.dtype)

    def put(self, x: Tensor) -> Tensor:
        """An input of a network."""
        return x.to(self.device, self.activations)


@dataclass(frozen=True)
class Case:
    """One entry of `index.json`."""

    folder: Path
    entry: Mapping[str, Any]

    @property
    def kind(self) -> str:
        return str(self.entry["kind"])

    @property
    def name(self) -> str:
        return str(self.entry["file"]).removesuffix(".safetensors").removesuffix(".json")

    @property
    def tolerance(self) -> float:
        return float(self.entry["tolerance"]["max_abs"])

    def tensors(self, place: Place) -> dict[str, Tensor]:
        """All tensors of the case on the device, in their stored types."""
        return {name: x.to(place.device) for name, x in load_file(self.folder / self.entry["file"]).items()}

    def rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads((self.folder / self.entry["file"]).read_text())
        return rows

    def weights(self, key: str = "weights") -> dict[str, Tensor]:
        return read_weights(self.folder / self.entry[key])


@dataclass(frozen=True)
class Measured:
    """One comparison: the error beside what is allowed, largest absolute or relative L2."""

    what: str
    error: float
    allowed: float
    relative: bool = False

    @property
    def passed(self) -> bool:
        return self.error <= self.allowed  # False for NaN

    def __str__(self) -> str:
        return f"{self.what}: {self.error:.3g} > {self.allowed:.3g}{' relative' if self.relative else ''}"


@lru_cache(maxsize=8)
def read_weights(path: Path) -> dict[str, Tensor]:
    return load_file(path)


def compare(what: str, actual: Tensor, expected: Tensor, allowed: float) -> Measured:
    """Largest absolute error."""
    if actual.shape != expected.shape:
        return Measured(f"{what} (shape {list(actual.shape)} for {list(expected.shape)})", math.inf, allowed)
    if actual.numel() == 0:
        return Measured(what, 0.0, allowed)
    return Measured(what, (widened(actual) - widened(expected)).abs().max().item(), allowed)


def widened(x: Tensor) -> Tensor:
    return x.detach().to("cpu", torch.float64)


def compare_relative(what: str, actual: Tensor, expected: Tensor, allowed: float) -> Measured:
    """L2 norm of the error over that of the expected values."""
    if actual.shape != expected.shape:
        return compare(what, actual, expected, allowed)
    wanted = widened(expected)
    error = (widened(actual) - wanted).norm() / wanted.norm().clamp_min(1e-30)
    return Measured(what, error.item(), allowed, relative=True)


def compare_outputs(
    found: Mapping[str, Tensor], stored: Mapping[str, Tensor], yardstick: Mapping[str, float]
) -> Iterator[Measured]:
    """Low precision: every stored output against the error of the released code, named by a part of the output's name.

    Intermediate results are left to fp32, which finds an error's place; here the question is how large it gets.
    """
    for name in stored:
        if name.startswith("out"):
            (error,) = (value for part, value in yardstick.items() if part in name)
            yield compare_relative(name, found[name], stored[name], LOW_PRECISION_SLACK * error)


def compare_stages(
    found: Mapping[str, Tensor], stored: Mapping[str, Tensor], *, output: str, tolerance: float
) -> Iterator[Measured]:
    """What is both found and stored. The tolerance is meant for outputs: larger values have larger rounding errors."""
    scale = stored[output].abs().max().item()
    for name in stored:
        if name.startswith("out") and name not in found:
            yield Measured(f"{name} is not computed", math.inf, 0)
        if name in found:
            size = stored[name].double().abs().max().item() if name.startswith("mid.") else 0.0
            yield compare(name, found[name], stored[name], tolerance * max(1.0, size / scale))
