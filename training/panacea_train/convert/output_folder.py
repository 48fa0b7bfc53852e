"""The output folder of a conversion, which appears complete or not at all, and the progress bar of its stages."""

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
    """The kind of folder that may be replaced."""

    words: str
    signs: tuple[str, ...]
    """The folder has at least one of these files."""


MODEL = Contents("adapter or model", ("adapter_config.json", "config.json", "adapter/adapter_config.json"))


@contextmanager
def new_folder(out: Path, *, overwrite: bool = False, replaces: Contents = MODEL) -> Generator[Path]:
    """A folder beside `out` to write into. It becomes `out` if the block succeeds; otherwise it is deleted.

    Raises `ConfigError` if `out` cannot be made, or exists, is not empty, and must not be replaced. Only a folder that
    `replaces` describes is ever replaced, so that a mistake in the name cannot delete other files.
    """
    out = out.absolute()
    try:
        if out.exists() and not (out.is_dir() and not any(out.iterdir())):
            if not overwrite:
                raise ConfigError(f"{out} exists already; --overwrite replaces it, once the new one is complete")
            if not any((out / name).is_file() for name in replaces.signs):
                raise ConfigError(f"{out} is not an {replaces.words}, so it is not replaced: choose another folder")
        out.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        old = new.with_name(f"{new.name}-old")
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error.strerror or error}") from None
    try:
        mask = os.umask(0)
        os.umask(mask)
        new.chmod(_READABLE & ~mask)  # mkdtemp's are their owner's alone, but other users may serve a model
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
    """A progress bar of `total` stages. It yields a function to call with a stage's name when the stage begins."""
    with tqdm(total=total, desc=title, unit="stage", leave=False) as bar:
        begun = 0

        def begin(name: str) -> None:
            nonlocal begun
            bar.update(begun - bar.n)
            begun += 1
            bar.set_description(f"{title}: {name}")

        yield begin
