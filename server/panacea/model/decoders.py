"""The model's forward: a fused one for the common families, and transformers' own for all others.

transformers' own layers take some 40 device operations each (Qwen3: 52). Llama, Mistral, Qwen2 and Qwen3 differ only in
biases, in a norm of queries and keys, and in sliding windows. So one forward serves all four with nine operations per
layer: norm, q+k+v, rotate and store, attend, o, norm, gate+up, silu and product, down.
"""

import copy
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

import panacea_kernels as pk
from panacea.model.attention_interface import STEP_ATTENTION
from panacea.model.steered_linear import FusedPart, SteeredLinear

FAMILIES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
"""transformers' classes that `FusedDecoder` supports."""

# In these types the frequencies depend only on the position. The loader refuses "dynamic" and says why.
_ROPE_TYPES = ("default", "linear", "llama3", "yarn", "longrope")


class Cache(Protocol):
    """A step's view of the paged KV cache."""

    @property
    def layers(self) -> Sequence[tuple[torch.Tensor, torch.Tensor]]:
        """Keys and values (blocks, block_size, kv_heads, dim) of every layer."""
        ...

    @property
    def layout(self) -> pk.PagedLayout: ...


class Decoder(Protocol):
    """Computes one step."""

    @property
    def recordable(self) -> bool:
        """Whether a CUDA graph may record it: its inputs keep their addresses, and it never waits for the device."""
        ...

    def states(self, token_ids: torch.Tensor, cache: Cache, rows: torch.Tensor | None) -> torch.Tensor:
        """token_ids (tokens,) -> final states (rows, hidden), from which `logits` computes logits.

        `rows` (rows,) int64 are the indices of the tokens whose states are returned. None returns all states, in order.
        """
        ...

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """states (n, hidden) -> logits (n, vocabulary). The caller passes a few states at a time to save memory."""
        ...


class TransformersDecoder:
    """Runs a step with transformers' own code, which reads the cache through the attention interface."""

    recordable = False

    def __init__(self, network: PreTrainedModel) -> None:
        self._network = network
        # Some families scale or cap their logits after the head. So the family's own forward computes the logits, with
        # the given states in place of its layers' output.
        self._given = _Given(network.base_model)
        self._head: Any = copy.copy(network)
        parts: dict[str, Any] = {**dict(network.named_children()), network.base_model_prefix: self._given}
        self._head._modules = parts

    def states(self, token_ids: torch.Tensor, cache: Cache, rows: torch.Tensor | None) -> torch.Tensor:
        output = self._network.base_model(
            input_ids=token_ids[None],
            position_ids=cache.layout.positions[None].long(),
            use_cache=False,
            **{STEP_ATTENTION: cache},
        )
        states: torch.Tensor = output.last_hidden_state[0]
        return states if rows is None else states.index_select(0, rows)

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        token_ids = torch.zeros(1, len(states), dtype=torch.int64, device=states.device)  # nobody embeds them
        with self._given.holding(states[None]):
            logits: torch.Tensor = self._head(input_ids=token_ids, use_cache=False).logits[0]
        return logits


class _Given:
    """Takes the place of a network's layers. Whatever it is called with, it returns the states that it holds.

    Families call their layers with arguments of their own, by position or by name, and some call `model.decoder`
    instead of `model`. A part of the layers that contains attention is therefore replaced too, and everything else
    (the embedding, to which a head may be tied) is the network's own.
    """

    def __init__(self, layers: nn.Module) -> None:
        self._layers = layers
        self._states: torch.Tensor | None = None

    @contextmanager
    def holding(self, states: torch.Tensor) -> Generator[None]:
        """Within this context, calls return `states` (1, n, hidden)."""
        self._states = states
        try:
            yield
        finally:
            self._states = None

    def __call__(self, *_inputs: object, **_options: object) -> "_Output":
        assert self._states is not None, "the head runs while states are given"
        return _Output(self._states)

    def __getattr__(self, name: str) -> Any:
        part = getattr(self._layers, name)
        attends = isinstance(part, nn.Module) and any(hasattr(module, "layer_idx") for module in part.modules())
        return self if attends else part


class _Output:
    """The output of a network's layers that consists of their states alone, read by name or by position.

    Families also read what only some layers return (router logits, states of an image). Here these are None.
    """

    def __init__(self, states: torch.Tensor) -> None:
        self.last_hidden_state = states

    def __getattr__(self, _name: str) -> None:
        return None

    def __getitem__(self, index: int) -> torch.Tensor | None:
        return None if index else self.last_hidden_state


@dataclass(frozen=True)
class _Layer:
    """The parts of one decoder layer. Projections map (rows, in) to (rows, out)."""

    input_norm: torch.Tensor
    qkv: SteeredLinear
    q_norm: torch.Tensor | None
    k_norm: torch.Tensor | None
    o: nn.Module
    post_norm: torch.Tensor
    gate_up: SteeredLinear
    down: nn.Module
    scaling: float
    sliding_window: int | None


class FusedDecoder:
    """Runs a step of Llama, Mistral, Qwen2 or Qwen3. The results equal those of transformers to within rounding."""

    recordable = True

    def __init__(self, network: PreTrainedModel, context_length: int) -> None:
        """`network` must satisfy `fits`: the loader has fused its projections. Its weights are used, not copied."""
        config = network.config
        core: Any = network.model
        self._embedding: torch.Tensor = core.embed_tokens.weight
        self._head: nn.Linear = network.lm_head
        self._final_norm: torch.Tensor = core.norm.weight
        self._eps: float = config.rms_norm_eps
        self._layers = [_layer(layer, config) for layer in core.layers]
        positions = torch.arange(context_length, device=self._embedding.device)[None]
        with torch.inference_mode():
            cos, sin = core.rotary_emb(self._embedding[:1][None], position_ids=positions)
        self._cos: torch.Tensor = cos[0].contiguous()
        self._sin: torch.Tensor = sin[0].contiguous()

    @staticmethod
    def fits(network: PreTrainedModel) -> bool:
        """Whether this forward computes the network correctly: a known family without unusual settings."""
        config: Any = network.config
        rope: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
        return (
            type(network).__name__ in FAMILIES
            and config.hidden_act == "silu"
            and rope.get("rope_type", "default") in _ROPE_TYPES
            and rope.get("partial_rotary_factor", 1.0) == 1.0
            and all(
                isinstance(layer.self_attn.q_proj, FusedPart) and isinstance(layer.mlp.gate_proj, FusedPart)
                for layer in network.model.layers
            )
        )

    def states(self, token_ids: torch.Tensor, cache: Cache, rows: torch.Tensor | None) -> torch.Tensor:
        x = F.embedding(token_ids, self._embedding)
        stream: torch.Tensor | None = None
        for layer, (k_cache, v_cache) in zip(self._layers, cache.layers, strict=True):
            normed, stream = pk.add_rms_norm(x, stream, layer.input_norm, self._eps)
            q = pk.rotate_and_store(
                layer.qkv(normed),
                self._cos,
                self._sin,
                k_cache,
                v_cache,
                cache.layout,
                layer.q_norm,
                layer.k_norm,
                self._eps,
            )
            attended = pk.paged_attention(q, k_cache, v_cache, cache.layout, layer.scaling, layer.sliding_window)
            x = _project(layer.o, attended.flatten(1))
            normed, stream = pk.add_rms_norm(x, stream, layer.post_norm, self._eps)
            x = _project(layer.down, pk.silu_mul(layer.gate_up(normed)))
        assert stream is not None, "a model has layers"
        if rows is not None:
            x, stream = x.index_select(0, rows), stream.index_select(0, rows)
        normed, _ = pk.add_rms_norm(x, stream, self._final_norm, self._eps)
        return normed

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        return _project(self._head, states)


def _layer(layer: Any, config: Any) -> _Layer:
    attention = layer.self_attn
    # Qwen's layers carry their own sliding window, all of Mistral's use the config's, and Llama's have none.
    everywhere = config.sliding_window if config.model_type == "mistral" else None
    return _Layer(
        input_norm=layer.input_layernorm.weight,
        qkv=attention.q_proj.linear,
        q_norm=attention.q_norm.weight if hasattr(attention, "q_norm") else None,
        k_norm=attention.k_norm.weight if hasattr(attention, "k_norm") else None,
        o=attention.o_proj,
        post_norm=layer.post_attention_layernorm.weight,
        gate_up=layer.mlp.gate_proj.linear,
        down=layer.mlp.down_proj,
        scaling=attention.scaling,
        sliding_window=getattr(attention, "sliding_window", everywhere),
    )


def _project(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """x (rows, in) -> (rows, out) by a linear layer, steered or not."""
    if isinstance(module, nn.Linear):
        return pk.linear(x, module.weight, module.bias)
    y: torch.Tensor = module(x)
    return y
