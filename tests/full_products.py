"""Listed cases, and the full products behind them.

Triton's interpreter is far slower than a GPU. So a test of a kernel lists its cases one by one. The full product of all
values runs on a GPU, and elsewhere with PANACEA_FULL_PRODUCTS=1. On a GPU, PANACEA_FULL_PRODUCTS=0 turns it off.
docs/testing.md lists what the products add.
"""

import os
from collections.abc import Iterable, Sequence
from typing import TypeVar

from tests.gpu import has_gpu

FULL_PRODUCTS = os.environ.get("PANACEA_FULL_PRODUCTS", "1" if has_gpu() else "0") == "1"

Case = TypeVar("Case")


def cases(listed: Sequence[Case], product: Iterable[Case]) -> list[Case]:
    """The listed cases, or all of the product, which must contain them."""
    everything = list(product)
    missing = [case for case in listed if case not in everything]
    if missing:
        raise ValueError(f"listed, but not in the product: {missing}")
    return everything if FULL_PRODUCTS else list(listed)
