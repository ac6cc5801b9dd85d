"""Amounts as Kubernetes writes them: `24Gi`, `1.5G`, `250m`, `1073741824`."""

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
