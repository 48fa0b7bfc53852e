"""Runs a step's work through the model. Owns the tensors: cache, preference table, inputs."""

from collections.abc import Sequence

import torch

from panacea.config import EngineConfig
from panacea.engine.kv_cache import KVCache, block_bytes, probe_layers
from panacea.engine.request import Request
from panacea.engine.sampler import Sampled, SamplingRow, sample
from panacea.engine.scheduler import Work
from panacea.errors import ConfigError
from panacea.model.attention import STEP_ATTENTION
from panacea.model.loader import LoadedModel
from panacea_kernels import Span


class Runner:
    """A loaded model and its KV cache. Raises `ConfigError` if the cache cannot hold a single block."""

    def __init__(self, model: LoadedModel, config: EngineConfig) -> None:
        self.model = model
        shapes = probe_layers(model)
        self.num_blocks = _num_blocks(config, model, block_bytes(shapes, config.block_size, model.dtype))
        self.cache = KVCache(shapes, self.num_blocks, config.block_size, model.device, model.dtype)
        self._written: dict[int, Request] = {}

    @torch.inference_mode()
    def run(self, work: Sequence[Work]) -> list[Sampled]:
        """One forward over `work` (single tokens first). A token for each item that samples, in their order."""
        logits = self.forward(work)
        rows = [self._sampling_row(item.request) for item in work if item.samples]
        return sample(logits, rows) if rows else []

    @torch.inference_mode()
    def forward(self, work: Sequence[Work]) -> torch.Tensor:
        """The next-token logits (items that sample, vocabulary); one meaningless row if none does."""
        self._write_slots(work)
        token_ids: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        ends: list[int] = []
        for item in work:
            token_ids += item.request.tokens(item.start, item.count)
            positions += range(item.start, item.start + item.count)
            slots += [item.request.slot or 0] * item.count
            if item.samples:
                ends.append(len(token_ids) - 1)
        device = self.model.device
        self.model.steering.slots = torch.tensor(slots, dtype=torch.int32, device=device)
        attention = self.cache.step([Span(item.start, item.count, item.request.blocks) for item in work])
        output = self.model.network(
            input_ids=torch.tensor([token_ids], device=device),
            position_ids=torch.tensor([positions], device=device),
            use_cache=False,
            # Only rows that sample reach the vocabulary; one row stands in when none does.
            logits_to_keep=torch.tensor(ends or [0], device=device),
            **{STEP_ATTENTION: attention},
        )
        logits: torch.Tensor = output.logits[0]
        return logits

    def _write_slots(self, work: Sequence[Work]) -> None:
        """Writes the preferences of requests that were admitted since the last step. Never anyone else's."""
        for item in work:
            slot = item.request.slot
            if slot and self._written.get(slot) is not item.request:
                assert self.model.adapter is not None, "the engine refuses preferences without an adapter"
                weights = self.model.adapter.config.column_weights(item.request.preference)
                self.model.steering.table[slot] = torch.tensor(weights, dtype=torch.float32)
                self._written[slot] = item.request

    def _sampling_row(self, request: Request) -> SamplingRow:
        params, position = request.params, len(request.output_ids)
        eos = () if params.ignore_eos else self.model.eos_token_ids
        banned = (*eos, *params.stop_token_ids) if position < params.min_tokens else ()
        return SamplingRow(params, position, banned)


def _num_blocks(config: EngineConfig, model: LoadedModel, size_bytes: int) -> int:
    """As many blocks as asked for, else as the memory limit allows and `max_batch` full contexts can use."""
    if config.num_blocks is not None:
        return config.num_blocks
    useful = config.max_batch * -(-model.context_length // config.block_size)
    affordable = config.kv_cache_bytes // size_bytes
    if affordable < 1:
        raise ConfigError(f"a KV cache of {config.kv_cache_bytes} bytes cannot hold one block of {size_bytes} bytes")
    return min(useful, affordable)
