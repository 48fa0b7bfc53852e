"""Choosing the next token of each row.

Noise is a counter-based hash of (seed, choice, output position, token): no generator with a state, so a seeded request
gives the same tokens alone and in any batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from panacea.engine.sampling_params import SamplingParams

CANDIDATES = 1024
"""So many tokens are looked at for top-k and top-p before the whole vocabulary is sorted. With 16 rows, 151,936 tokens,
top-k 20 and top-p 0.9 a draw takes 78 ms instead of 741 (one Xeon core)."""

_MASK = (1 << 64) - 1
# SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
_GAMMA, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


@dataclass(frozen=True)
class SamplingRow:
    """What the sampler needs to know of the request behind a row of logits."""

    params: SamplingParams
    position: int
    """How many tokens the answer has already."""
    banned: tuple[int, ...]
    """Tokens that may not come now (those that end an answer, before `min_tokens`)."""


@dataclass(frozen=True)
class Sampled:
    """The chosen token of one row, with log probabilities if the request wants any."""

    token_id: int
    logprob: float | None
    top_logprobs: tuple[tuple[int, float], ...]


def sample(logits: torch.Tensor, rows: Sequence[SamplingRow]) -> list[Sampled]:
    """One token per row of `logits` (rows, vocabulary), any floating dtype.

    Gumbel-max: argmax of logits / temperature + g with g standard Gumbel noise is a draw from the softmax; tokens
    outside top-k and top-p do not take part. Log probabilities are the model's own, before temperature and the rest.
    """
    logits = logits.float()
    chosen_from = logits
    if any(row.banned for row in rows):
        chosen_from = logits.clone()
        for line, row in enumerate(rows):
            chosen_from[line, list(row.banned)] = float("-inf")
    token_ids = chosen_from.argmax(dim=-1)
    noisy = [line for line, row in enumerate(rows) if row.params.temperature > 0]
    if noisy:
        index = torch.tensor(noisy, device=logits.device)
        token_ids[index] = _draw(chosen_from[index], [rows[i] for i in noisy])
    return _report(logits, token_ids, rows)


def _draw(logits: torch.Tensor, rows: Sequence[SamplingRow]) -> torch.Tensor:
    temperatures = torch.tensor([row.params.temperature for row in rows], dtype=torch.float64, device=logits.device)
    # The largest logit is taken off first: a temperature near 0 then sends the others to -inf and nothing to +inf.
    scaled = (logits - logits.amax(dim=-1, keepdim=True)).double() / temperatures[:, None]
    keys = [_key(row.params.seed, row.params.choice, row.position) for row in rows]
    chosen = torch.empty(len(rows), dtype=torch.int64, device=logits.device)
    cut = [line for line, row in enumerate(rows) if row.params.top_k or row.params.top_p < 1]
    whole = [line for line, row in enumerate(rows) if not (row.params.top_k or row.params.top_p < 1)]
    if whole:
        token_ids = torch.arange(logits.shape[-1], device=logits.device).expand(len(whole), -1)
        noise = gumbel_noise([keys[line] for line in whole], token_ids)
        chosen[whole] = (scaled[whole] + noise).argmax(dim=-1)
    if cut:
        kept, token_ids = _most_likely(scaled[cut], [rows[line].params for line in cut])
        best = (kept + gumbel_noise([keys[line] for line in cut], token_ids)).argmax(dim=-1, keepdim=True)
        chosen[cut] = token_ids.gather(-1, best)[:, 0]
    return chosen


def _most_likely(scaled: torch.Tensor, params: Sequence[SamplingParams]) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens within top-k, and within top-p of what top-k leaves, most likely first.

    Returns their logits (rows, candidates), -inf where a row keeps fewer than others, and their ids. Looks at the
    `CANDIDATES` most likely tokens, and at the whole vocabulary only where those do not suffice.
    """
    size = scaled.shape[-1]
    top_k = torch.tensor([min(p.top_k or size, size) for p in params], device=scaled.device)[:, None]
    top_p = torch.tensor([p.top_p for p in params], dtype=scaled.dtype, device=scaled.device)[:, None]
    total = scaled.logsumexp(dim=-1, keepdim=True)
    count = min(CANDIDATES, size)
    while True:
        ordered, token_ids = scaled.topk(count, dim=-1)
        within = torch.arange(count, device=scaled.device) < top_k
        ordered = ordered.masked_fill(~within, float("-inf"))
        # Where top-k ends within the candidates its tokens share all probability, elsewhere the vocabulary does.
        mass = torch.where(top_k <= count, ordered.logsumexp(dim=-1, keepdim=True), total)
        probabilities = (ordered - mass).exp()
        reached = probabilities.cumsum(dim=-1)
        if count == size or bool(((top_k <= count) | (reached[:, -1:] >= top_p)).all()):
            break
        count = size
    dropped = reached - probabilities >= top_p
    dropped[:, 0] = False  # the most likely token always stays
    return ordered.masked_fill(dropped, float("-inf")), token_ids


def _mix(state: int) -> int:
    state = ((state ^ (state >> 30)) * _MIX_1) & _MASK
    state = ((state ^ (state >> 27)) * _MIX_2) & _MASK
    return state ^ (state >> 31)


def _key(seed: int, choice: int, position: int) -> int:
    """64 bits of (seed, choice, position). Each is mixed in turn: sums of small numbers would collide."""
    key = 0
    for part in (seed, choice, position):
        key = _mix((key + (part & _MASK) + _GAMMA) & _MASK)
    return key


def gumbel_noise(keys: Sequence[int], token_ids: torch.Tensor) -> torch.Tensor:
    """Standard Gumbel noise (keys, tokens) float64 for `token_ids` (keys, tokens).

    Each entry depends on its key and its token alone.
    """
    signed = torch.tensor([_signed(key) for key in keys], device=token_ids.device)
    state = signed[:, None] + (token_ids + 1) * _signed(_GAMMA)
    state = (state ^ _shift_right(state, 30)) * _signed(_MIX_1)
    state = (state ^ _shift_right(state, 27)) * _signed(_MIX_2)
    state = state ^ _shift_right(state, 31)
    uniform = (_shift_right(state, 11).double() + 0.5) * 2.0**-53  # in (0, 1)
    return -torch.log(-torch.log(uniform))


def _signed(bits: int) -> int:
    """The same 64 bits as torch's signed integer; its arithmetic wraps around like the unsigned one."""
    return bits - (1 << 64) if bits >> 63 else bits


def _shift_right(state: torch.Tensor, by: int) -> torch.Tensor:
    """A shift that fills with zeros (torch's own fills with the sign)."""
    return (state >> by) & ((1 << (64 - by)) - 1)


def _report(logits: torch.Tensor, token_ids: torch.Tensor, rows: Sequence[SamplingRow]) -> list[Sampled]:
    chosen: list[int] = token_ids.tolist()
    wanted = [index for index, row in enumerate(rows) if row.params.logprobs is not None]
    sampled = [Sampled(token_id, None, ()) for token_id in chosen]
    if not wanted:
        return sampled
    logprobs = logits[torch.tensor(wanted, device=logits.device)].log_softmax(dim=-1)
    most = max(rows[index].params.logprobs or 0 for index in wanted)
    top_values, top_ids = logprobs.topk(min(most, logprobs.shape[-1]), dim=-1)
    for line, index in enumerate(wanted):
        count = rows[index].params.logprobs or 0
        top = zip(top_ids[line, :count].tolist(), top_values[line, :count].tolist(), strict=True)
        sampled[index] = Sampled(chosen[index], logprobs[line, chosen[index]].item(), tuple(top))
    return sampled
