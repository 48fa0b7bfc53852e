"""From what a user names, folders or hub ids, to the base model and the adapter that are served. No torch."""

from dataclasses import dataclass
from pathlib import Path

from panacea.demo_model import DEMO_ADAPTER
from panacea.errors import ConfigError
from panacea.model.adapter_config import AdapterConfig
from panacea.model.folder_format import check_model_file, check_model_folder, check_tokenizer
from panacea.model.hub import local_folder
from panacea.preference import PreferenceSpace


@dataclass(frozen=True)
class Checkpoint:
    """The local folders of a base model and its adapter, and the adapter's preference space."""

    base: Path
    adapter: Path | None
    space: PreferenceSpace | None

    @classmethod
    def find(
        cls,
        model: str | None = None,
        adapter: str | None = None,
        revision: str | None = None,
        adapter_revision: str | None = None,
    ) -> "Checkpoint":
        """Resolves folders or hub ids, with a download if need be. Without both it is the embedded demo.

        An adapter without `model` takes the base that its config names. A revision is a branch, tag or commit of a hub
        id: `revision` of the base, `adapter_revision` of the adapter. Raises `ConfigError` or `CheckpointError`.
        """
        if adapter is None and adapter_revision is not None:
            raise ConfigError("--adapter-revision needs --adapter with a hub id")
        if adapter is None and model is not None:
            return cls(_base_folder(model, revision), None, None)
        folder = DEMO_ADAPTER if adapter is None else local_folder(adapter, adapter_revision, "--adapter-revision")
        config = AdapterConfig.read(folder)
        return cls(_base_folder(str(model or config.base_of(folder)), revision), folder, config.space)

    @property
    def name(self) -> str:
        """The model id of a server that was given no other."""
        return "panacea-demo" if self.adapter == DEMO_ADAPTER else (self.adapter or self.base).resolve().name


def _base_folder(name: str, revision: str | None) -> Path:
    check_model_file(Path(name).expanduser())
    folder = local_folder(name, revision)
    check_model_folder(folder)
    check_tokenizer(folder)
    return folder
