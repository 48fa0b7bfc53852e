"""Files that users name as inputs."""

import stat
from pathlib import Path

from panacea.errors import ConfigError


def check_regular(path: Path) -> None:
    """Raises `ConfigError` for a pipe, a socket or a device: reading one may wait for ever, or never end.

    Inputs are read more than once, for example to recognise them when a run is resumed, so standard input is refused
    too. A missing file is not reported here: opening it says why.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ConfigError(f"{path} is not a regular file: save its content in a file first")
