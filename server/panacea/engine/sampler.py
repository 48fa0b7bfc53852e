"""Chooses the next token of each row, on the device that computed the logits.

The host launches this work without waiting. It waits only when the caller asks for the tokens.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from panacea.engine.adjustments import Adjustments
from panacea.engine.outputs import PromptLogprob
from panacea.engine.sampling_params import SamplingParams
from panacea.engine.sampling_row import SamplingRow
from panacea.engine.transfer import to_device, to_host
from panacea_kernels import draw

_LEAST_FLOAT = 1e-30
_MOST_TEMPERATURE = 1e30
# Within these, a logit divided by the temperature, and noise multiplied by it, are finite.

_MASK = (1 << 64) - 1
# SplitMix64, as in the kernels' noise.
_GAMMA, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


@dataclass(frozen=True)
class Sampled:
    """The chosen token of one row, with log probabilities if the request asks for them."""

    token_id: int
    logprob: float | None
    top_logprobs: tuple[tuple[int, float], ...]
    prompt_logprobs: tuple[PromptLogprob, ...] | None = None
    """Set with the first token, if the request asks for them."""
    finite: bool = True
    """Whether the token's logit and all log probabilities are finite. If not, the token is meaningless."""
    allowed: bool = True
    """Whether the request allows the token. False: it allows none here, so the token is meaningless."""


class PendingTokens:
    """One token per row, chosen on the device and being copied to the host."""

    def __init__(
        self,
        token_ids: torch.Tensor,
        chosen: torch.Tensor,
        adjusted: torch.Tensor | None,
        logprobs: "_LogProbs | None",
        rows: Sequence[SamplingRow],
    ) -> None:
        """`token_ids` (rows,) int64. `chosen` and `adjusted` (rows,): the logits of these tokens, the model's own and
        after all adjustments. `adjusted` is None if there are none."""
        self.token_ids = token_ids
        """(rows,) int64 on the device."""
        self.rows = rows
        self._logprobs = logprobs
        self._on_host = [to_host(tensor) for tensor in (token_ids, chosen, *(logprobs.tensors if logprobs else ()))]
        self._adjusted = None if adjusted is None else to_host(adjusted)
        self._arrived = torch.cuda.Event() if token_ids.is_cuda else None  # type: ignore[no-untyped-call]
        if self._arrived is not None:
            self._arrived.record()

    def result(self) -> list[Sampled]:
        """The tokens and log probabilities, row by row. The only place where the host waits for the device."""
        if self._arrived is not None:
            self._arrived.synchronize()
        token_ids: list[int] = self._on_host[0].tolist()
        chosen: list[float] = self._on_host[1].tolist()
        sampled = [
            Sampled(token_id, None, (), finite=math.isfinite(logit))
            for token_id, logit in zip(token_ids, chosen, strict=True)
        ]
        if self._adjusted is not None:
            for row in (self._adjusted == -math.inf).nonzero()[:, 0].tolist():
                sampled[row] = replace(sampled[row], allowed=False)
        if self._logprobs is not None:
            own, top_values, top_ids = (tensor.tolist() for tensor in self._on_host[2:])
            for line, row in enumerate(self._logprobs.lines):
                count = self.rows[row].params.logprobs or 0
                top = zip(top_ids[line][:count], top_values[line][:count], strict=True)
                finite = sampled[row].finite and math.isfinite(own[line])
                sampled[row] = replace(sampled[row], logprob=own[line], top_logprobs=tuple(top), finite=finite)
        return sampled


@dataclass(frozen=True)
class _LogProbs:
    """Log probabilities of the rows whose requests ask for them."""

    lines: list[int]
    """Indices of these rows among the rows of the step."""
    own: torch.Tensor  # (lines,)
    top_values: torch.Tensor  # (lines, most)
    top_ids: torch.Tensor  # (lines, most)

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        return self.own, self.top_values, self.top_ids


def choose(logits: torch.Tensor, rows: Sequence[SamplingRow], adjustments: Adjustments) -> PendingTokens:
    """One token per row of `logits` (rows, vocabulary), any floating dtype. See `Adjustments`, `panacea_kernels.draw`.

    Log probabilities are the model's own, before all adjustments and the temperature. Work that is launched after this
    call may overwrite `logits`.
    """
    device = logits.device
    if not rows:
        return PendingTokens(torch.empty(0, dtype=torch.int64, device=device), logits.new_empty(0), None, None, rows)
    floats = [[_temperature(row.params) for row in rows], [max(row.params.top_p, _LEAST_FLOAT) for row in rows]]
    temperature, top_p = to_device(floats, torch.float32, device)
    keys = [_key(row.params.seed, row.params.choice, row.position) for row in rows]
    top_ks = [min(row.params.top_k, logits.shape[1]) for row in rows]
    top_k, key = to_device([top_ks, keys], torch.int64, device)
    adjusted = adjustments.apply(logits, rows)
    token_ids = draw(adjusted, temperature, top_k.to(torch.int32), top_p, key)
    adjustments.note(token_ids, rows)
    chosen = logits.gather(-1, token_ids[:, None])[:, 0]
    changed = None if adjusted is logits else adjusted.gather(-1, token_ids[:, None])[:, 0]
    return PendingTokens(token_ids, chosen, changed, _log_probabilities(logits, token_ids, rows), rows)


def _log_probabilities(
    logits: torch.Tensor, token_ids: torch.Tensor, rows: Sequence[SamplingRow]
) -> "_LogProbs | None":
    lines = [index for index, row in enumerate(rows) if row.params.logprobs is not None]
    if not lines:
        return None
    index = to_device(lines, torch.int64, logits.device)
    logprobs = logits[index].float().log_softmax(dim=-1)
    most = max(rows[line].params.logprobs or 0 for line in lines)
    top_values, top_ids = logprobs.topk(min(most, logprobs.shape[-1]), dim=-1)
    own = logprobs.gather(-1, token_ids[index, None])[:, 0]
    return _LogProbs(lines, own, top_values, top_ids)


def _temperature(params: SamplingParams) -> float:
    """A temperature with which float32 computes. Below the smallest one, the most likely token is certain."""
    return 0.0 if params.temperature < _LEAST_FLOAT else min(params.temperature, _MOST_TEMPERATURE)


def _mix(state: int) -> int:
    state = ((state ^ (state >> 30)) * _MIX_1) & _MASK
    state = ((state ^ (state >> 27)) * _MIX_2) & _MASK
    return state ^ (state >> 31)


def _key(seed: int, choice: int, position: int) -> int:
    """A signed 64-bit hash of (seed, choice, position). Each part is mixed in turn, because sums of small numbers would
    collide."""
    key = 0
    for part in (seed, choice, position):
        key = _mix((key + (part & _MASK) + _GAMMA) & _MASK)
    return key - (1 << 64) if key >> 63 else key
