"""How much of everything a run does."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    rounds: int
    round_vrs: int
    burst_vrs: int
    latency_vrs: int
    sustained_s: int
    finished_vrs: tuple[int, int]
    cycles: int
    cold_vrs: int


FULL: Final = Sizes(
    rounds=5,
    round_vrs=300,
    burst_vrs=1000,
    latency_vrs=300,
    sustained_s=300,
    finished_vrs=(1000, 10_000),
    cycles=10_000,
    cold_vrs=1000,
)
QUICK: Final = Sizes(
    rounds=2,
    round_vrs=100,
    burst_vrs=200,
    latency_vrs=100,
    sustained_s=15,
    finished_vrs=(100, 1000),
    cycles=300,
    cold_vrs=200,
)
