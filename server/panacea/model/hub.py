"""From what a user names, a folder or a hub id, to a folder on this machine. No torch."""

import re
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from panacea.errors import ConfigError, first_line

# What a model or adapter in safetensors needs; no weights in other formats, and never code.
_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
# The same weights once more, in their authors' own layout.
_DUPLICATES = ["consolidated*", "original/*"]
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def local_folder(name: str) -> Path:
    """The folder `name`, or the snapshot of the hub repository `name`, downloaded with a progress bar if need be.

    Raises `ConfigError` with one line that says what to do.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if not _HUB_ID.fullmatch(name):
        raise ConfigError(f"{name} is neither a folder nor a hub id (owner/name)")
    try:
        return Path(snapshot_download(name, allow_patterns=_FILES, ignore_patterns=_DUPLICATES))
    except GatedRepoError:
        raise ConfigError(f"{name} is gated: accept its licence on its page on the hub, and set HF_TOKEN") from None
    except RepositoryNotFoundError:
        raise ConfigError(
            f"{name} is no folder, and the hub has no such repository (private ones need HF_TOKEN)"
        ) from None
    except LocalEntryNotFoundError:
        raise ConfigError(f"{name} is no folder, is not in the hub's cache, and the hub cannot be reached") from None
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise ConfigError(f"{name} cannot be downloaded: {first_line(error)}") from None
