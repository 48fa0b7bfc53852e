"""A Unix socket to listen on, for a proxy on the same machine."""

import os
import socket
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from panacea.errors import ConfigError

_MODE = 0o660
"""Owner and group may connect. The proxy's user must be in the group of the socket's folder."""


@contextmanager
def unix_listener(path: Path) -> Generator[socket.socket]:
    """A socket that listens at `path` while the block runs. Its file is removed at the end.

    A socket that a killed server left behind is replaced. Raises `ConfigError` if another program listens there, if the
    path is something other than a socket, or if the socket cannot be made.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            _remove_stale(path)
            # The mode is set before the name is known: a new file would be open to everyone for a moment.
            mask = os.umask(0o777 & ~_MODE)
            try:
                listener.bind(str(path))
            finally:
                os.umask(mask)
            listener.listen()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ConfigError(f"cannot listen on the Unix socket {path}: {reason.lower()}") from None
        made = _identity(path)
        try:
            yield listener
        finally:
            if _identity(path) == made:  # not another server's, which has taken the place meanwhile
                with suppress(OSError):
                    path.unlink()
    finally:
        listener.close()


def _remove_stale(path: Path) -> None:
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise OSError(0, "it exists and is not a socket; choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise OSError(0, "another program listens there; stop it or choose another path")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
