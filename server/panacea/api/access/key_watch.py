"""Reads the key file again when it changes."""

import asyncio
import logging
import stat
from pathlib import Path

from panacea.api.access.key_ring import KeyRing
from panacea.errors import ConfigError
from panacea.key_file import KeyFile, read_key_file

logger = logging.getLogger(__name__)

_POLL_S = 1.0
_FileStamp = tuple[int, ...]
"""What changes when a file is written or replaced."""


async def watch_key_file(path: Path, keys: KeyRing, poll_s: float = _POLL_S) -> None:
    """Makes the file's keys valid now and after each change, until it is cancelled.

    A changed file is read when it has stayed the same for one poll, so that a half-written one is not. If it cannot be
    used, the old keys stay valid, and one line is logged. A pipe is not watched: it can be read only once.
    """
    if not path.is_file():
        return
    in_use: _FileStamp | None = None
    last: _FileStamp | None = None
    while True:
        stamp = await asyncio.to_thread(_stamp, path)
        if stamp != in_use and (stamp == last or in_use is None):
            in_use = stamp
            await _reload(path, keys)
        last = stamp
        await asyncio.sleep(poll_s)


async def _reload(path: Path, keys: KeyRing) -> None:
    try:
        file = await asyncio.to_thread(read_key_file, path)
    except ConfigError as error:
        keys.failed_reloads += 1
        logger.error("the API keys stay as they were: %s", error)
        return
    before = {account.tenant for account in keys.accounts}
    after = {key.tenant for key in file.keys}
    keys.replace(file.keys)
    _report(path, file, len(after - before), len(before - after))


def _report(path: Path, file: KeyFile, added: int, removed: int) -> None:
    if added or removed:
        logger.info("read the API keys again: %d added, %d removed, %d in all", added, removed, len(file.keys))
    if file.is_exposed:
        logger.warning("every user of this machine can read the keys in %s; chmod o-r, or keep sha256 in it", path)


def _stamp(path: Path) -> _FileStamp:
    try:
        status = path.stat()
    except OSError:
        return ()
    is_file = stat.S_ISREG(status.st_mode)
    return (status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size) if is_file else ()
