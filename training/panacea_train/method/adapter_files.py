"""Writing an adapter: exactly the two files of the format."""

import copy
import os
from pathlib import Path

import torch
from peft import PeftModel
from peft.utils import SAFETENSORS_WEIGHTS_NAME, get_peft_model_state_dict
from safetensors.torch import save

from panacea.errors import ConfigError
from panacea_train.method.panacea_config import PanaceaConfig


def save_adapter(
    model: PeftModel,
    folder: str | os.PathLike[str],
    *,
    base: str | os.PathLike[str] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Writes `adapter_config.json` and `adapter_model.safetensors` into `folder`, and no model card.

    `base` is the base model's folder and is written relative to `folder`; None keeps the place the model was loaded
    from. `dtype` is the tensors' dtype on disk; None keeps the training's (float32).

    Raises `ConfigError` if `model` has no Panacea adapter, or `base` is not a folder or unknown.
    """
    name = model.active_adapters[0]
    config = model.peft_config[name]
    if not isinstance(config, PanaceaConfig):
        raise ConfigError("the model has no Panacea adapter")
    config = copy.copy(config)
    if base is None and config.base_model_name_or_path is None:
        raise ConfigError("the base model is unknown: pass base")
    if base is not None:
        if not Path(base).is_dir():
            raise ConfigError(f"the base model {base} is not a folder: pass the folder it is saved in")
        config.base_model_name_or_path = str(base)
        config.relative_base = True
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    on_disk = {key: tensor.detach().to("cpu", dtype).contiguous() for key, tensor in tensors.items()}
    # `save_file` would make the file readable by its owner alone (mode 0600), but other users may serve the adapter.
    (folder / SAFETENSORS_WEIGHTS_NAME).write_bytes(save(on_disk, metadata={"format": "pt"}))
    config.save_pretrained(folder)
