"""The folder of an engine's local sockets, and the removal of those that killed servers left behind."""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

COMMANDS, EVENTS = "commands", "events"
"""The names of the two sockets."""
_LOCK = "lock"
_PREFIX = "panacea-"
LONGEST_NAME = f"/{_PREFIX}12345678/{COMMANDS}"


@contextmanager
def socket_folder() -> Generator[Path]:
    """A new folder that only this user may enter. It is removed at the end of the block.

    It contains a file that is locked as long as this process lives. The kernel releases the lock of a killed process,
    so the next call finds its folder and removes it.
    """
    _remove_orphans()
    folder, lock = _locked_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _locked_folder() -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        path = folder / _LOCK
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return folder, lock
        os.close(lock)  # between the two lines above, another server took the folder for an orphan


def _remove_orphans() -> None:
    with suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for entry in entries:
            if entry.name.startswith(_PREFIX) and entry.is_dir(follow_symlinks=False):
                with suppress(OSError):
                    _remove_if_orphan(entry.path)


def _remove_if_orphan(folder: str) -> None:
    """Removes the folder if it is this user's, contains nothing else, and its lock is free. Raises `OSError`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        is_private = found.st_uid == os.geteuid() and not found.st_mode & 0o077
        if not is_private or not {_LOCK} <= set(os.listdir(descriptor)) <= {_LOCK, COMMANDS, EVENTS}:
            return
        # Not blocking, because a FIFO of this name would wait for a writer.
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        lock = os.open(_LOCK, flags, dir_fd=descriptor)
        try:
            if not stat.S_ISREG(os.fstat(lock).st_mode):
                return
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises if its owner lives
            for name in (COMMANDS, EVENTS, _LOCK):  # the lock is the last, or the rest would stay for ever
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=descriptor)
            os.rmdir(folder)
        finally:
            os.close(lock)
    finally:
        os.close(descriptor)
