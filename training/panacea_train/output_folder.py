"""The folder of a result, which appears complete or not at all, and replaces nothing but a result of the same kind."""

import fcntl
import hashlib
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from errno import EEXIST, ENOTDIR, ENOTEMPTY
from fnmatch import fnmatchcase
from pathlib import Path

from safetensors import SafetensorError

from panacea.errors import ConfigError, OutputError, first_line
from panacea_train.folder_exchange import ASIDE, exchange

_READABLE = 0o777
_LONGEST_NAME = 100
"""Characters of the folder's name in the names beside it, which must stay below the file system's 255 bytes."""
_SUFFIX = re.compile(rf"[a-z0-9_]{{8}}({ASIDE})?")


@dataclass(frozen=True)
class Contents:
    """The kind of folder that may be replaced."""

    words: str
    """With its article."""
    signs: tuple[str, ...]
    """The folder has at least one of these files."""
    names: tuple[str, ...]
    """Patterns of all that our commands write into it. With anything else in it, it is not replaced."""


MODEL = Contents(
    "an adapter or model",
    ("adapter_config.json", "config.json", "adapter/adapter_config.json"),
    (
        *("config.json", "*_config.json", "tokenizer*.json", "special_tokens_map.json", "added_tokens.json"),
        *("vocab.json", "vocab.txt", "merges.txt", "*.model", "chat_template.json", "*.jinja"),
        *("*.safetensors", "*.safetensors.index.json", "LICENSE.txt", "evaluation.json", "training.json"),
        *("additional_chat_templates", "base", "adapter"),
    ),
)


@dataclass(frozen=True)
class OutputFolder:
    """The place of a result, which this process alone may fill until it is released."""

    out: Path
    overwrite: bool
    replaces: Contents

    def temporary(self) -> Path:
        """A new folder beside `out`. If this process is killed, the next run that writes to `out` deletes it."""
        new = Path(tempfile.mkdtemp(prefix=f"{_stem(self.out)}-", dir=self.out.parent))
        mask = os.umask(0)
        os.umask(mask)
        new.chmod(_READABLE & ~mask)  # mkdtemp's are their owner's alone, but other users may serve a model
        return new

    def check(self) -> None:
        """Raises `ConfigError` if `out` exists, is not empty, and must not be replaced."""
        out = self.out
        if out.is_symlink():
            raise ConfigError(f"{out} is a symbolic link: name the folder that it points to")
        if not out.exists():
            return
        if out in (Path.cwd(), *Path.cwd().parents, Path.home(), *Path.home().parents) or os.path.ismount(out):
            raise ConfigError(f"{out} is a folder that others use: name a new folder inside it")
        if out.is_dir() and not any(out.iterdir()):
            return
        if not self.overwrite:
            raise ConfigError(f"{out} exists already; --overwrite replaces it, once the new one is complete")
        if not out.is_dir() or not any((out / name).is_file() for name in self.replaces.signs):
            raise ConfigError(f"{out} is not {self.replaces.words}, so it is not replaced: choose another folder")
        stranger = _stranger_in(out, self.replaces)
        if stranger is not None:
            raise ConfigError(
                f"{out} holds {stranger}, which is not part of {self.replaces.words}, so it is not replaced: move "
                "that away, or choose another folder"
            )

    def put(self, new: Path) -> None:
        """Renames the complete folder `new` to `out`, which is checked again: somebody may have used it meanwhile.

        Raises `ConfigError` or `OutputError` if it cannot be put there; `out` is then as it was.
        """
        self.check()
        try:
            # The kernel renames a folder onto a missing or an empty one only.
            new.rename(self.out)
        except OSError as error:
            if error.errno not in (ENOTEMPTY, EEXIST, ENOTDIR):
                raise
            if not self.overwrite:
                raise OutputError(f"{self.out} was filled by somebody else meanwhile, so it is left alone") from None
            self._replace(new)

    def _replace(self, new: Path) -> None:
        old = exchange(new, self.out)
        # What was there a moment ago was checked; this is what really was replaced.
        if _stranger_in(old, self.replaces) is not None:
            exchange(old, self.out)
            raise OutputError(f"{self.out} was changed by somebody else meanwhile, so it is left alone")
        shutil.rmtree(old, ignore_errors=True)


def _print(text: str) -> None:
    sys.stderr.write(f"{text}\n")


@contextmanager
def output_folder(
    out: Path, *, overwrite: bool, replaces: Contents = MODEL, say: Callable[[str], None] = _print
) -> Generator[OutputFolder]:
    """The right to write to `out`, until the block ends. `say` gets a line for each leftover of a killed run.

    Raises `ConfigError` if `out` cannot be made, or exists, is not empty, and must not be replaced. Only a folder that
    `replaces` describes is ever replaced, so that a mistake in the name cannot delete other files. Raises `OutputError`
    while another process writes to `out`.
    """
    out = Path(os.path.normpath(out.expanduser().absolute()))
    folder = OutputFolder(out, overwrite, replaces)
    with ExitStack() as claim:
        try:
            folder.check()
            out.parent.mkdir(parents=True, exist_ok=True)
            claim.enter_context(locked(out))
            folder.check()
            _clean(out, say)
        except OSError as error:
            raise ConfigError(_refused(out, error)) from None
        try:
            yield folder
        except OSError as error:
            raise OutputError(_refused(out, error)) from None


@contextmanager
def new_folder(out: Path, *, overwrite: bool = False, replaces: Contents = MODEL) -> Generator[Path]:
    """A folder beside `out` to write into. It becomes `out` if the block succeeds; otherwise it is deleted.

    Raises as `output_folder` does, and `OutputError` where a file cannot be written inside the block.
    """
    with output_folder(out, overwrite=overwrite, replaces=replaces) as folder:
        new = folder.temporary()
        try:
            yield new
            folder.put(new)
        except SafetensorError as error:
            raise OutputError(f"{folder.out} cannot be written: {first_line(error)}") from None
        finally:
            shutil.rmtree(new, ignore_errors=True)


def _refused(out: Path, error: OSError) -> str:
    """What the operating system refused: to write `out`, or the use of another file that the error names."""
    place = str(error.filename or out)
    reason = error.strerror or error
    if place in (str(out), str(out.parent)) or place.startswith(str(out.with_name(_stem(out)))):
        return f"{out} cannot be written: {reason}"
    return f"{place} cannot be used: {reason}"


def _stem(out: Path) -> str:
    """How the names of the hidden files beside `out` begin."""
    name = out.name
    if len(name.encode()) > _LONGEST_NAME:
        name = f"{name[: _LONGEST_NAME // 4]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return f".{name}.panacea"


def _stranger_in(folder: Path, contents: Contents) -> str | None:
    """The name of something in `folder` that no command of ours writes there."""
    for path in sorted(folder.iterdir()):
        if not any(fnmatchcase(path.name, name) for name in contents.names):
            return path.name
        inner = _stranger_in(path, contents) if path.is_dir() and not path.is_symlink() else None
        if inner is not None:
            return f"{path.name}/{inner}"
    return None


@contextmanager
def locked(out: Path) -> Generator[None]:
    """Holds the lock file beside `out`. The kernel releases it when the process ends, however it ends.

    Raises `OutputError` while another process holds it.
    """
    path = out.with_name(f"{_stem(out)}-lock")
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_current = os.path.samestat(os.fstat(lock), path.stat())
        except BlockingIOError:
            os.close(lock)
            raise OutputError(f"another run writes to {out} now: wait for it, or choose another folder") from None
        except FileNotFoundError:
            is_current = False
        if is_current:
            break
        os.close(lock)  # its last owner has deleted it between our two calls
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(lock)


def _clean(out: Path, say: Callable[[str], None]) -> None:
    """Deletes what killed runs have left beside `out`. We hold its lock, so nobody uses it."""
    stem = f"{_stem(out)}-"
    for path in sorted(out.parent.glob(f"{_literal(stem)}*")):
        suffix = _SUFFIX.fullmatch(path.name.removeprefix(stem))
        if suffix is None or not stat.S_ISDIR(path.lstat().st_mode):
            continue
        if suffix[1] and not out.exists():
            path.rename(out)
            say(f"{out} was set aside by a run that was killed: it is back")
        else:
            shutil.rmtree(path, ignore_errors=True)
            say(f"{path} was left by a run that was killed: deleted")


def _literal(text: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", text)
