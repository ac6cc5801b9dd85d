"""Compare the networks with stored results of the released code: `python -m tests.model.fixtures FOLDER`.

A folder holds an `index.json` with cases; each case names its kind, its tensors, its configuration and its tolerance.
`CHECKS` is the one list of the kinds that are built. A case of any other kind counts as failed here, so the program
tells how much of a folder is covered; `pytest` runs the cases of the built kinds from the folder in this repository.

`--device cuda --dtype bf16` computes on a GPU and in another precision; `comparing.py` says what is allowed there, and
`--json FILE` keeps every error. `--path fast` takes the implementations prepared for a GPU (on a CPU: their plain
fallbacks), whose outputs must lie within the same limits; what they do not keep in between is not compared.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from restoration_api.request import Precision
from restoration_runner.errors import RestorationError
from restoration_runner.models.device import DTYPES, device_name, prepare_device
from tests.model.check_networks import check_dit, check_pipeline, check_vae
from tests.model.check_rules import (
    check_colorfix,
    check_resize,
    check_resize_crop,
    check_rope,
    check_timestep,
    check_units,
    check_windows,
)
from tests.model.comparing import IMPLEMENTATIONS, Case, Measured, Place

Check = Callable[[Case, Place], Iterator[Measured]]

# The kinds that are built. A kind that is not listed here is a failure of the program below.
CHECKS: dict[str, Check] = {
    "dit3b": check_dit,
    "dit7b": check_dit,
    "vae": check_vae,
    "pipeline": check_pipeline,
    "colorfix": check_colorfix,
    "resize": check_resize,
    "rope": check_rope,
    "resize_crop": check_resize_crop,
    "timestep_transform": check_timestep,
    "windows": check_windows,
    "units": check_units,
}


def read_cases(folder: Path) -> list[Case]:
    index = json.loads((folder / "index.json").read_text())
    return [Case(folder, entry) for entry in index["cases"]]


@dataclass(frozen=True)
class Result:
    """`problem` is None for a case that passed."""

    case: Case
    measured: tuple[Measured, ...]
    problem: str | None

    @property
    def worst(self) -> Measured | None:
        """The comparison nearest to its limit, or farthest beyond it."""
        return max(self.measured, key=nearness, default=None)


def nearness(measured: Measured) -> float:
    return math.inf if math.isnan(measured.error) else measured.error / max(measured.allowed, 1e-30)


def run_case(case: Case, place: Place) -> Result:
    if case.kind not in CHECKS:
        return Result(case, (), f"kind {case.kind!r} is not built")
    try:
        measured = tuple(CHECKS[case.kind](case, place))
    except Exception as error:  # one broken case must not hide the others
        return Result(case, (), f"{type(error).__name__}: {first_line(error)}")
    if not measured:
        return Result(case, (), "nothing was compared")
    failed = [m for m in measured if not m.passed]
    return Result(case, measured, "; ".join(map(str, failed[:4])) or None)


def first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")


def report(results: list[Result], place: Place) -> None:
    """The comparison nearest to its limit for each kind, then what failed, then the count."""
    print(f"{place.dtype} on {device_name(place.device)}, {place.path} path")
    print(f"{'kind':20} {'cases':>5} {'error':>10} {'allowed':>10}  where")
    for kind in dict.fromkeys(result.case.kind for result in results):
        of_kind = [result for result in results if result.case.kind == kind]
        measured = [(r.worst, r.case) for r in of_kind if r.worst is not None]
        if not measured:
            print(f"{kind:20} {len(of_kind):5} {'-':>10} {'-':>10}  not compared")
            continue
        worst, case = max(measured, key=lambda item: nearness(item[0]))
        unit = " (relative)" if worst.relative else ""
        print(f"{kind:20} {len(of_kind):5} {worst.error:10.3g} {worst.allowed:10.3g}  {case.name} {worst.what}{unit}")
    failed = [result for result in results if result.problem]
    for result in failed:
        print(f"FAILED {result.case.kind} {result.case.name}: {result.problem}")
    print(f"{len(results) - len(failed)} passed, {len(failed)} failed")


def as_json(results: list[Result], place: Place) -> str:
    cases = [
        {"case": r.case.name, "kind": r.case.kind, "problem": r.problem, "measured": [asdict(m) for m in r.measured]}
        for r in results
    ]
    found = {"device": device_name(place.device), "dtype": str(place.dtype), "path": place.path}
    return json.dumps({**found, "torch": torch.__version__, "cases": cases}, indent=1) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.model.fixtures", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="folder with index.json")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N or auto (default: cpu)")
    parser.add_argument("--dtype", default="fp32", choices=[name.lower() for name in DTYPES], help="of the networks")
    parser.add_argument("--path", default="plain", choices=IMPLEMENTATIONS, help="implementation of the networks")
    parser.add_argument("--json", type=Path, help="also write every error to this file")
    chosen = parser.parse_args(arguments)
    try:
        cases = read_cases(chosen.folder)
        place = Place(prepare_device(chosen.device), DTYPES[Precision(chosen.dtype.upper())], chosen.path)
    except (OSError, ValueError, KeyError) as error:
        print(f"{chosen.folder / 'index.json'} cannot be read: {error}", file=sys.stderr)
        return 2
    except RestorationError as error:
        print(error.message, file=sys.stderr)
        return 2
    results = [run_case(case, place) for case in cases]
    report(results, place)
    if chosen.json:
        chosen.json.write_text(as_json(results, place))
    return 1 if any(result.problem for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
