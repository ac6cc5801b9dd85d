"""Amounts as Kubernetes writes them: `24Gi`, `1.5G`, `250m`, `1073741824`."""

from math import ceil
from typing import Final

_UNITS: Final = {
    "": 1,
    "m": 1e-3,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}


def amount(quantity: str | int) -> float:
    """The number that a quantity of the form that our schemas let through stands for."""
    text = str(quantity)
    unit = text.lstrip("0123456789.")
    return float(text.removesuffix(unit)) * _UNITS[unit]


def smaller(first: str | int | None, second: str | int) -> str | int:
    """The smaller of two quantities, as it was written; `second` where there is no first."""
    return second if first is None or amount(second) <= amount(first) else first


def total(*quantities: str | int | None) -> str | int | None:
    """Their sum, in the unit that all of them are written in, else in single ones; None where there is none at all."""
    given = [quantity for quantity in quantities if quantity is not None]
    if len(given) < 2:
        return given[0] if given else None
    units = {str(quantity).lstrip("0123456789") for quantity in given}
    if len(units) == 1 and not (unit := units.pop()).startswith("."):
        return f"{sum(int(str(quantity).removesuffix(unit)) for quantity in given)}{unit}"
    return str(ceil(sum(amount(quantity) for quantity in given)))
