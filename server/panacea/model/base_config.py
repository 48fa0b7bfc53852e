"""A base model's config.json: reads it, and refuses what the engine would compute wrongly."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from transformers import AutoConfig, PreTrainedConfig
from transformers import __version__ as transformers_version
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from panacea.errors import CheckpointError, first_line

_ATTENTION_LAYERS = frozenset({"full_attention", "sliding_attention", "chunked_attention", "attention"})
"""Names that configs give to layers whose only state is keys and values."""
_LAYER_LISTS = ("layer_types", "layers_block_type", "block_types")
_RECURRENT_SETTINGS = (
    "mamba_",
    "ssm_",
    "lru_",
    "linear_attn",
    "conv_L_cache",
    "time_mix",
    "state_size",
    "rescale_every",
    "qk_dim_factor",
)
"""Beginnings of the settings of layers that keep a state outside the KV cache."""
_SIZES = {
    "num_hidden_layers": 10_000,
    "hidden_size": 1 << 20,
    "vocab_size": 1 << 24,
    "num_attention_heads": 1 << 16,
    "intermediate_size": 1 << 24,
    "max_position_embeddings": 1 << 24,
}
"""Largest values that are taken for a model's. Larger ones would only exhaust the memory."""
_WRITERS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "Model", "Decoder", "LMHead")
"""Ends of the names of architectures that write text, or are the core of one that does."""


def read_base_config(folder: Path) -> PreTrainedConfig:
    """`folder`/config.json. Raises `CheckpointError` in one line for a damaged file and for an unsupported model."""
    path = folder / "config.json"
    content = _read_object(path)
    _check_architecture(path, content)
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        text = config.get_text_config(decoder=True)
        reason = unsupported_attention(text)
    except Exception as error:  # a config's own checks may raise anything
        raise CheckpointError(f"{path} cannot be used: {_reason(error)}") from None
    quantization: object = getattr(config, "quantization_config", None)
    if quantization is not None:
        described: dict[str, Any] = cast("dict[str, Any]", quantization) if isinstance(quantization, dict) else {}
        method = described.get("quant_method") or "unnamed method"
        raise CheckpointError(f"{folder} is quantised ({method}); use weights of 16 or 32 bits")
    if config.is_encoder_decoder:
        raise CheckpointError(f"{folder} is an encoder-decoder model; use a causal language model")
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise CheckpointError(
            f"{folder} is not supported: transformers {transformers_version} has no causal language model of type "
            f"{config.model_type!r}"
        )
    if reason is not None:
        raise CheckpointError(f"{folder} is not supported: {reason}")
    return config


def unsupported_attention(text: PreTrainedConfig) -> str | None:
    """Why the engine cannot compute a model with this text config, as far as the config tells."""
    settings: Mapping[str, Any] = text.to_dict()
    if settings.get("index_topk") is not None:
        return f"{text.model_type} has sparse attention (index_topk): an indexer chooses the keys of each token"
    if settings.get("attention_chunk_size"):
        return "its attention needs attention_chunk_size"
    # "vision" lets the tokens of one image see each other, and changes nothing for text.
    if settings.get("use_bidirectional_attention") not in (None, False, "vision"):
        return "its attention needs use_bidirectional_attention"
    attention: object = settings.get("attn_config")
    nested = isinstance(attention, dict) and bool(cast("dict[str, Any]", attention).get("alibi"))
    if text.model_type == "bloom" or settings.get("alibi") or nested:
        return f"{text.model_type} has ALiBi instead of position embeddings, which the engine's attention lacks"
    listed = next((settings[name] for name in _LAYER_LISTS if settings.get(name)), None)
    if listed is not None:
        odd = sorted({str(kind) for kind in listed} - _ATTENTION_LAYERS)
    else:
        odd = sorted(name for name, value in settings.items() if value and name.startswith(_RECURRENT_SETTINGS))
    if odd and settings.get("num_attention_heads"):
        return f"{text.model_type} is a hybrid of attention and layers that keep another state ({odd[0]})"
    if odd:
        return f"{text.model_type} is a recurrent model without attention ({odd[0]})"
    return None


def _read_object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"{path.parent} is not a model folder: config.json is missing")
    try:
        content: object = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {first_line(error)}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} does not hold a JSON object")
    return cast("dict[str, Any]", content)


def _check_architecture(path: Path, content: dict[str, Any]) -> None:
    if not isinstance(content.get("model_type"), str):
        raise CheckpointError(f"{path} has no model_type: it is not the config of a transformers model")
    text_config: object = content.get("text_config")
    parts = [content, *([cast("dict[str, Any]", text_config)] if isinstance(text_config, dict) else [])]
    for part in parts:
        for name, most in _SIZES.items():
            value: object = part.get(name)
            values = (
                value if isinstance(value, list) else [] if value is None else [value]
            )  # one for each layer, or one
            if not all(type(each) is int and 0 < each <= most for each in values):
                raise CheckpointError(f"{path}: {name} must be a whole number from 1 to {most}")
    names = content.get("architectures")
    if isinstance(names, list) and names and not any(str(name).endswith(_WRITERS) for name in names):
        name = ascii(str(names[0])[:80])[1:-1]
        raise CheckpointError(f"{path.parent} holds a {name}, which writes no text: use a causal language model")


def _reason(error: Exception) -> str:
    """One line of a library's error. The checks of transformers' configs put their reason into the second line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if type(error).__name__.startswith("Strict") and lines else first_line(error))[:300]
