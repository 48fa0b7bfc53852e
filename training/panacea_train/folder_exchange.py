"""Exchanging two folders, at once where the operating system can."""

import ctypes
import os
from pathlib import Path

ASIDE = "-old"
"""The end of the name of a folder that stands aside while another takes its place."""
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def exchange(new: Path, out: Path) -> Path:
    """Puts `new` at `out`; returns where the folder that was at `out` is now.

    On Linux `renameat2` exchanges both at once. Elsewhere, and on file systems that cannot, there is a moment without
    `out`: a process that is killed then leaves the old folder beside it, under a name that ends in -old.
    """
    if _exchange_at_once(new, out):
        return new
    # The exchange of an exchange uses the other of the two names.
    is_old = new.name.endswith(ASIDE)
    old = new.with_name(new.name.removesuffix(ASIDE) if is_old else f"{new.name}{ASIDE}")
    out.rename(old)
    try:
        new.rename(out)
    except OSError:
        old.rename(out)
        raise
    return old


def _exchange_at_once(one: Path, other: Path) -> bool:
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    places = (_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other))
    return bool(renameat2(*places, _RENAME_EXCHANGE) == 0)
