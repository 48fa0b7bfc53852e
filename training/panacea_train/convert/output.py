"""Where a conversion writes, a folder that is there as a whole or not at all, and how it shows how far it is."""

import os
import shutil
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from panacea.errors import ConfigError

_READABLE = 0o777


@contextmanager
def new_folder(out: Path) -> Generator[Path]:
    """A folder beside `out` to write into. It becomes `out` when the block ends well; otherwise nothing is left of it.

    Raises `ConfigError` where `out` is there already and not empty, or cannot be made.
    """
    out = out.absolute()
    try:
        if out.exists() and not (out.is_dir() and not any(out.iterdir())):
            raise ConfigError(f"{out} is there already: remove it, or name another folder")
        out.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error.strerror or error}") from None
    try:
        mask = os.umask(0)
        os.umask(mask)
        new.chmod(_READABLE & ~mask)  # mkdtemp's are their owner's alone, but a model is there to be served
        yield new
        new.replace(out)
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(new, ignore_errors=True)


@contextmanager
def stages(title: str, total: int) -> Generator[Callable[[str], None]]:
    """A progress bar of `total` stages; what it yields is called with each one's name when it begins."""
    with tqdm(total=total, desc=title, unit="stage", leave=False) as bar:
        begun = 0

        def begin(name: str) -> None:
            nonlocal begun
            bar.update(begun - bar.n)
            begun += 1
            bar.set_description(f"{title}: {name}")

        yield begin
