"""Where a conversion writes, a folder that is there as a whole or not at all, and how it shows how far it is."""

import os
import shutil
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from panacea.errors import ConfigError

_READABLE = 0o777


@dataclass(frozen=True)
class Contents:
    """What a folder may be, for it to be replaced."""

    words: str
    signs: tuple[str, ...]
    """It has at least one of these files."""


MODEL = Contents("adapter and no model", ("adapter_config.json", "config.json", "adapter/adapter_config.json"))


@contextmanager
def new_folder(out: Path, *, overwrite: bool = False, replaces: Contents = MODEL) -> Generator[Path]:
    """A folder beside `out` to write into. It becomes `out` when the block ends well; otherwise nothing is left of it.

    Raises `ConfigError` where `out` cannot be made, or exists, is not empty, and is not to be replaced: only what
    `replaces` describes ever is, so that a slip costs no more than that.
    """
    out = out.absolute()
    try:
        if out.exists() and not (out.is_dir() and not any(out.iterdir())):
            if not overwrite:
                raise ConfigError(f"{out} exists already; --overwrite replaces it, once the new one is complete")
            if not any((out / name).is_file() for name in replaces.signs):
                raise ConfigError(f"{out} is no {replaces.words}, so it is not replaced")
        out.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        old = new.with_name(f"{new.name}-old")
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error.strerror or error}") from None
    try:
        mask = os.umask(0)
        os.umask(mask)
        new.chmod(_READABLE & ~mask)  # mkdtemp's are their owner's alone, but a model is there to be served
        yield new
        if out.exists() and any(out.iterdir()):
            out.replace(old)
        new.replace(out)
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


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
