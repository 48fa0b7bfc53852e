"""Resolves a folder or a hub id to a local folder. This module does not import torch."""

import os
import re
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from panacea.errors import ConfigError, first_line

# The files of a model or adapter in safetensors. Weights in other formats and code are not downloaded.
_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
# Copies of the same weights in their authors' own layout.
_DUPLICATES = ["consolidated*", "original/*"]
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def local_folder(name: str, revision: str | None = None, option: str = "--revision") -> Path:
    """The folder `name`, or the snapshot of the hub repository `name` at a branch, tag or commit.

    Missing files are downloaded with a progress bar. `option` is the user's name of `revision`.

    Raises `ConfigError`, also for a folder with a pipe, a socket or a device in it: reading one may wait for ever.
    """
    folder = Path(name).expanduser()
    try:
        if folder.is_dir():
            if revision is not None:
                raise ConfigError(f"{option} is for hub ids, but {name} is a folder: leave the option out")
            _check_files(folder)
            return folder
    except OSError as error:  # older Pythons raise for a name that is too long
        raise ConfigError(f"{name[:80]!r} is not a folder: {error.strerror}") from None
    if not _HUB_ID.fullmatch(name):
        raise ConfigError(f"{name} is neither a folder nor a hub id (owner/name)")
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_FILES, ignore_patterns=_DUPLICATES))
    except GatedRepoError:
        raise ConfigError(f"{name} is gated: accept its licence on its page on the hub, and set HF_TOKEN") from None
    except RepositoryNotFoundError:
        raise ConfigError(
            f"{name} is not a folder, and the hub has no such repository; set HF_TOKEN if it is private"
        ) from None
    except RevisionNotFoundError:
        raise ConfigError(f"{option} {revision}: {name} has no such branch, tag or commit on the hub") from None
    except LocalEntryNotFoundError:
        at = "" if revision is None else f" at revision {revision}"
        raise ConfigError(
            f"{name} is not a folder and not in the hub's cache{at}, and the hub cannot be reached; check the network"
        ) from None
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise ConfigError(f"{name} cannot be downloaded: {first_line(error)}") from None


def _check_files(folder: Path) -> None:
    with os.scandir(folder) as entries:
        for entry in entries:
            if not (entry.is_file() or entry.is_dir() or entry.is_symlink()):
                raise ConfigError(f"{folder} holds {entry.name}, which is not a regular file: remove it")
