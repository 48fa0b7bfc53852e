"""Numbers and preferences as text."""

import math
from collections.abc import Iterable, Sequence

MOST_DECIMALS = 4
"""Evaluations are rounded to this number of decimals."""

MINUS = "\N{MINUS SIGN}"
TIMES = "\N{MULTIPLICATION SIGN}"

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n\r"} | {0x7F: 0x2421}


def decimals_for(values: Iterable[float]) -> int | None:
    """The decimals that show three digits of the largest of `values`; None if it is too large or small for decimals."""
    largest = max((abs(value) for value in values), default=0.0)
    if largest == 0:
        return 0
    if not 1e-3 <= largest < 1e6:
        return None
    return min(max(3 - math.ceil(math.log10(largest)), 0), MOST_DECIMALS)


def finest_decimals(values: Sequence[float]) -> int | None:
    """As `decimals_for`, but for the smallest of `values` that is not 0, for rows with numbers of different size."""
    if decimals_for(values) is None:
        return None
    return max(
        (decimals_for([value]) or 0 if abs(value) >= 1e-3 else MOST_DECIMALS for value in values if value), default=0
    )


def number(value: float, decimals: int | None, is_signed: bool = False) -> str:
    """`value` with this number of decimals, or as a power of ten if None; with a plus if `is_signed`."""
    if decimals is None and value != 0:
        mantissa, exponent = f"{value:.2e}".split("e")
        shown = mantissa + times_power(int(exponent))
    else:
        shown = f"{value:,.{decimals or 0}f}"
        if float(shown.replace(",", "")) == 0:
            shown = shown.lstrip("-")
    is_positive = value > 0 and any(digit in shown for digit in "123456789")
    return ("+" if is_signed and is_positive else "") + shown.replace("-", MINUS)


def times_power(exponent: int) -> str:
    return f"{TIMES}10{str(exponent).translate(_SUPERSCRIPTS)}"


def single(value: float) -> str:
    """A number outside of a column."""
    is_whole = abs(value) < 1e6 and value == int(value)
    return number(value, 0 if is_whole else decimals_for([value]))


def percent(weight: float) -> str:
    return f"{round(100 * weight, 1):g}%"


def described(preference: Sequence[float], dimensions: Sequence[str]) -> str:
    """A preference as text, without the dimensions of weight 0."""
    parts = [f"{name} {percent(weight)}" for name, weight in zip(dimensions, preference, strict=True) if weight > 0]
    return ", ".join(parts) or "no weight at all"


def vertex(preference: Sequence[float]) -> int | None:
    """The dimension that has all the weight; None if there is none."""
    largest = max(range(len(preference)), key=preference.__getitem__)
    return largest if preference[largest] == sum(preference) > 0 else None


def shortened(text: str, length: int) -> str:
    """`text` cut to `length` characters."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def plain(text: str) -> str:
    """Control characters as their visible symbols: a browser would drop them, or refuse the file."""
    return text.translate(_PICTURES)
