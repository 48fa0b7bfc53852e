"""A file of a result, which appears complete or not at all."""

import os
from collections.abc import Callable
from pathlib import Path

from panacea.errors import OutputError


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write` with the name of a file beside `path`, with the same ending, which then becomes `path`.

    What is not a regular file, such as /dev/stdout, is written directly. Raises `OutputError`.
    """
    try:
        if path.exists() and not path.is_file():
            write(path)
            return
        new = path.with_name(f".panacea-{os.getpid()}{path.suffix}")
        try:
            write(new)
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from None
