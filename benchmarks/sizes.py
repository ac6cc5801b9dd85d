"""Which GPU a restoration needs: what the runner's memory plan says, without a GPU.

    python -m benchmarks.sizes
    python -m benchmarks.sizes --window 21 --card 24 --host 64

The plan is the one by which the runner chooses or refuses (`memory_plan.py`); how far it is from measured peaks is in
RESULTS.md. `--card` says with which exact knobs, from nothing given up to everything, each size runs on a card.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

from restoration_runner.models.seedvr2.config import MODELS
from restoration_runner.models.seedvr2.memory_model import Load
from restoration_runner.models.seedvr2.memory_plan import GIB, fitting, host_bytes_needed, ladder
from restoration_runner.restoration.grid import latent_count

SIZES = {"854×480": (864, 480), "1280×720": (1280, 720), "1920×1080": (1920, 1088), "3840×2160": (3840, 2160)}
"""By name; the networks see multiples of 16."""
MODELS_SHOWN = ("seedvr2-3b", "seedvr2-7b")
TEXT_TOKENS = 58
LARGEST_CARD_GIB = 288
STEP_GIB = 0.1


@dataclass(frozen=True)
class Need:
    """Least memory of a GPU by itself, and with the VAE's past in the host's memory, which then needs `host_gib`."""

    alone_gib: float | None
    with_host_gib: float | None
    host_gib: float | None


def load(size: str, model: str, window_frames: int) -> Load:
    """Windows of `window_frames` frames (4n+1) of that size, in a scene of any length."""
    width, height = SIZES[size]
    config = MODELS[model]
    return Load(
        dit=config.dit,
        vae=config.vae,
        width=width,
        height=height,
        window_latents=latent_count(window_frames),
        text_tokens=TEXT_TOKENS,
    )


def need(work: Load) -> Need:
    """Search the smallest cards: more memory always fits what less does."""
    endless = 1 << 50
    alone, with_host = (_smallest(work, host) for host in (0, endless))
    host = None if with_host is None else host_bytes_needed(work, round(with_host * GIB))
    return Need(alone, with_host, None if host is None else host / GIB)


def _smallest(work: Load, host_bytes: int) -> float | None:
    low, high = 0, round(LARGEST_CARD_GIB / STEP_GIB)
    if not fitting(work, LARGEST_CARD_GIB * GIB, host_bytes):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if fitting(work, round(middle * STEP_GIB * GIB), host_bytes):
            high = middle
        else:
            low = middle
    return high * STEP_GIB


def rung(work: Load, card_gib: float, host_gib: float) -> str:
    """How far down the ladder of exact knobs the plan goes on a card: 1 gives nothing up."""
    found = fitting(work, round(card_gib * GIB), round(host_gib * GIB))
    steps = list(ladder(work))
    return f"{steps.index(found[0]) + 1} of {len(steps)}" if found else "refused"


def main(arguments: list[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sizes", description=str(__doc__).split("\n")[0])
    parser.add_argument("--window", type=int, default=49, help="frames of a window, 4n+1 (default 49)")
    parser.add_argument("--card", type=float, action="append", default=[], help="GiB of a card; may be repeated")
    parser.add_argument("--host", type=float, default=0, help="GiB of the host's memory that the pod may use")
    options = parser.parse_args(arguments)
    if options.window < 5 or options.window % 4 != 1:
        parser.error(f"--window {options.window}: give 4n+1, at least 5")
    print(f"least memory of a GPU, windows of {options.window} frames, BF16\n")
    print("| output | model | GPU alone | with the host's memory |\n| --- | --- | --- | --- |")
    for size in SIZES:
        for model in MODELS_SHOWN:
            found = need(load(size, model, options.window))
            print(f"| {size} | {model} | {_gib(found.alone_gib)} | {_with_host(found)} |")
    for card in options.card:
        print(f"\non {card:g} GiB, {options.host:g} GiB of the host's: step of the ladder of exact knobs\n")
        print("| output | " + " | ".join(MODELS_SHOWN) + " |\n| --- | --- | --- |")
        for size in SIZES:
            steps = [rung(load(size, model, options.window), card, options.host) for model in MODELS_SHOWN]
            print(f"| {size} | {' | '.join(steps)} |")
    return 0


def _gib(value: float | None) -> str:
    return "none" if value is None else f"{value:.1f} GiB"


def _with_host(found: Need) -> str:
    if found.with_host_gib is None or found.with_host_gib == found.alone_gib:
        return ""
    return f"{_gib(found.with_host_gib)}, and {_gib(found.host_gib)} of the host's"


if __name__ == "__main__":
    sys.exit(main())
