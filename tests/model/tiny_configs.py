"""Tiny configs of every model type that transformers knows, by the names that configs give to their sizes."""

from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig

_SIZES: dict[str, int] = {
    "vocab_size": 120, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    # width
    "hidden_size": 64, "n_embd": 64, "d_model": 64, "embedding_size": 64, "dim": 64, "emb_dim": 64, "dim_model": 64,
    "word_embed_proj_dim": 64, "intermediate_size": 80, "ffn_dim": 80, "ffn_hidden_size": 80, "mlp_hidden_size": 80,
    "dim_ff": 80, "decoder_ffn_dim": 80, "encoder_ffn_dim": 80, "expansion_ratio": 2, "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": 120, "laurel_rank": 8, "dim_model_base": 24, "attention_hidden_size": 96,
    # depth
    "num_hidden_layers": 4, "n_layer": 4, "n_layers": 4, "num_layers": 4, "decoder_layers": 4, "encoder_layers": 2,
    "num_kv_shared_layers": 0, "max_window_layers": 1, "first_k_dense_replace": 1, "num_dense_layers": 1,
    # heads
    "num_attention_heads": 4, "n_head": 4, "n_heads": 4, "num_heads": 4, "decoder_attention_heads": 4,
    "encoder_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "global_head_dim": 16, "dim_head": 12,
    "kv_channels": 12, "attention_head_dim": 24, "swa_num_attention_heads": 4, "swa_num_key_value_heads": 2,
    "swa_head_dim": 12, "swa_v_head_dim": 8, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8, "v_head_dim": 8, "qk_head_dim": 16, "index_topk": 8, "index_n_heads": 2, "index_head_dim": 8,
    # length
    "max_position_embeddings": 128, "n_positions": 128, "max_seq_len": 128, "max_sequence_length": 128,
    "sliding_window": 9, "window_size": 9, "attention_window_size": 9, "local_attention": 9,
    # experts
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "moe_num_experts": 4, "num_experts_per_tok": 2,
    "top_k": 2, "moe_topk": 2, "moe_k": 2, "n_group": 1, "topk_group": 1, "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32, "shared_intermediate_size": 32, "expert_ffn_hidden_size": 32,
    "zero_expert_num": 1, "num_shared_experts": 1,
    # other states
    "mamba_d_ssm": 96, "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_d_state": 8,
    "mamba_expand": 2, "mamba_chunk_size": 8, "mamba_num_heads": 8, "mamba_head_dim": 12, "mamba_ngroups": 1,
    "mamba_dt_rank": 4, "n_groups": 1, "ssm_state_size": 8, "state_size": 8, "chunk_size": 8, "lru_width": 64,
    "linear_key_head_dim": 12, "linear_value_head_dim": 12, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
}  # fmt: skip
_FAMILIES: dict[str, dict[str, Any]] = {
    "gptj": {"rotary_dim": 8},
    "codegen": {"rotary_dim": 8},
    "falcon_h1": {"mamba_d_head": 12},
    "falcon": {"new_decoder_architecture": True, "num_kv_heads": 2, "alibi": False, "multi_query": False},
    "jamba": {
        "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1,
        "use_mamba_kernels": False,
    },
    "bamba": {"attn_layer_indices": [1, 3]},
    "nemotron_h": {"layers_block_type": ["mamba", "attention"] * 2},
    "mamba2": {"num_heads": 8, "expand": 2},
    "dots1": {"n_shared_experts": 1},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "zaya": {"num_experts_per_tok": 1},
}  # fmt: skip
_LAYER_LISTS = ("layer_types", "mlp_layer_types")


def tiny_config(model_type: str) -> PreTrainedConfig:
    """A config of this type with four layers of width 64. Raises whatever its class raises for these sizes."""
    kind: type[PreTrainedConfig] = CONFIG_MAPPING[model_type]
    usual = kind()
    settings: dict[str, Any] = usual.to_dict()
    aliases: dict[str, str] = getattr(kind, "attribute_map", {})
    values: dict[str, Any] = {}
    for name, size in _SIZES.items():
        stored = aliases.get(name, name)
        value = settings.get(stored)
        optional = value is None and name not in ("head_dim", "num_key_value_heads", "pad_token_id", "bos_token_id")
        if stored not in settings or stored in values or optional or isinstance(value, bool | list):
            continue
        values[name] = size
    if "kv_lora_rank" in settings and "qk_rope_head_dim" in settings:
        values.update(head_dim=8, num_key_value_heads=4)
    for name in _LAYER_LISTS:
        kinds = settings.get(name)
        if kinds and len(kinds) != _SIZES["num_hidden_layers"]:
            values[name] = (list(dict.fromkeys(kinds)) * 4)[:4]
    for name in ("text_config", "vision_config", "audio_config"):
        part = getattr(usual, name, None)
        if part is not None:
            values[name] = tiny_config(part.model_type).to_dict()
    return kind(**{**values, **_FAMILIES.get(model_type, {})})
