"""Changes to the logits before a token is drawn: grammars, bans, biases, penalties, min-p.

The order is that of vLLM's sampler (https://docs.vllm.ai/en/v0.22.1/api/vllm/v1/sample/sampler/): tokens that a
grammar or `min_tokens` forbids, logit bias, repetition penalty, frequency penalty, presence penalty, temperature,
min-p, top-k, top-p. `panacea_kernels.draw` applies temperature, top-k and top-p. Min-p is applied here, and its
threshold already takes the temperature into account.
"""

import math
from collections import abc

import torch

from panacea.engine.sampling_row import SamplingRow
from panacea.engine.sequence import PENDING_TOKEN, Sequence
from panacea.engine.transfer import bytes_to_device, to_device


class Adjustments:
    """Changes the logits of a step's rows. The tables for this are on the device and have a row per slot.

    The device counts the tokens that it samples itself, because the host may run a step ahead and then does not know
    the newest token. Only changes that a request asks for are computed, so a step without any costs nothing.
    """

    def __init__(self, num_slots: int, vocab_size: int, device: torch.device) -> None:
        self._seen = torch.zeros(num_slots, vocab_size, dtype=torch.int32, device=device)
        """(slots, vocabulary) int32: twice the token's count in the answer, plus one if the prompt contains it. A row
        is valid only while its request asks for a penalty."""
        self._biases: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        """By slot: token ids int64, and the float32 biases that are added to their logits."""

    def admit(self, sequence: Sequence) -> None:
        """Writes the rows of a sequence that has just been given a slot, for the first time or again."""
        slot, params, device = sequence.slot, sequence.request.params, self._seen.device
        assert slot is not None, "an admitted sequence has a slot"
        if params.logit_bias:
            biased, values = zip(*params.logit_bias, strict=True)
            self._biases[slot] = to_device(biased, torch.int64, device), to_device(values, torch.float32, device)
        if params.penalises:
            known = sequence.tokens(0, sequence.num_tokens)
            assert PENDING_TOKEN not in known, "a waiting sequence has no running step"
            prompt_tokens = len(sequence.request.prompt_ids)
            prompt, answer = known[:prompt_tokens], known[prompt_tokens:]
            seen = self._seen[slot]
            seen.zero_()
            seen[to_device(prompt, torch.int64, device)] = 1
            if answer:
                token_ids = to_device(answer, torch.int64, device)
                seen.scatter_add_(0, token_ids, torch.full_like(token_ids, 2, dtype=torch.int32))

    def apply(self, logits: torch.Tensor, rows: abc.Sequence[SamplingRow]) -> torch.Tensor:
        """The logits (rows, vocabulary) to draw from: `logits` itself if no row asks for a change, else a float32
        copy."""
        if not any(row.banned or row.allowed is not None or row.params.adjusts for row in rows):
            return logits
        adjusted = logits.to(torch.float32, copy=True)
        _allow(adjusted, rows)
        _ban(adjusted, rows)
        self._bias(adjusted, rows)
        self._penalise(adjusted, rows)
        _cut_unlikely(adjusted, rows)
        return adjusted

    def note(self, token_ids: torch.Tensor, rows: abc.Sequence[SamplingRow]) -> None:
        """Counts `token_ids` (rows,) int64, which were just added to these requests' answers."""
        some = _lines([row.params.penalises for row in rows])
        if some:
            slots = to_device([rows[line].slot for line in some], torch.int64, token_ids.device)
            self._seen[slots, token_ids[to_device(some, torch.int64, token_ids.device)]] += 2

    def _bias(self, logits: torch.Tensor, rows: abc.Sequence[SamplingRow]) -> None:
        some = _lines([bool(row.params.logit_bias) for row in rows])
        if some:
            biases = [self._biases[rows[line].slot] for line in some]
            counts = [len(token_ids) for token_ids, _ in biases]
            lines = to_device(
                [line for line, count in zip(some, counts, strict=True) for _ in range(count)],
                torch.int64,
                logits.device,
            )
            # No pair of row and token occurs twice.
            logits[lines, torch.cat([ids for ids, _ in biases])] += torch.cat([values for _, values in biases])

    def _penalise(self, logits: torch.Tensor, rows: abc.Sequence[SamplingRow]) -> None:
        """Applies the penalties.

            logit := logit / repetition  if it is above 0, else  logit * repetition     where the token was seen
            logit := logit - frequency * (times it was generated) - presence * (it was generated)

        The repetition penalty counts tokens of prompt and answer (arXiv 1909.05858, section 4.1, with transformers'
        rule for negative logits). The other two count tokens of the answer, as in OpenAI's documentation.
        """
        some = _lines([row.params.penalises for row in rows])
        if not some:
            return
        params = [rows[line].params for line in some]
        strengths = [
            [each.repetition_penalty for each in params],
            [each.frequency_penalty for each in params],
            [each.presence_penalty for each in params],
        ]
        repetition, frequency, presence = to_device(strengths, torch.float32, logits.device)[:, :, None]
        index, slots = to_device([some, [rows[line].slot for line in some]], torch.int64, logits.device)
        seen, values = self._seen[slots], logits[index]
        values = torch.where(seen > 0, torch.where(values > 0, values / repetition, values * repetition), values)
        times = seen >> 1
        logits[index] = values - frequency * times - presence * (times > 0)


def _allow(logits: torch.Tensor, rows: abc.Sequence[SamplingRow]) -> None:
    masks = {line: row.allowed for line, row in enumerate(rows) if row.allowed is not None}
    if masks:
        packed = bytes_to_device(list(masks.values()), logits.device)
        bits = (packed[:, :, None] >> torch.arange(8, dtype=torch.uint8, device=logits.device)) & 1
        index = to_device(list(masks), torch.int64, logits.device)
        logits[index] = logits[index].masked_fill(bits.flatten(1)[:, : logits.shape[1]] == 0, float("-inf"))


def _ban(logits: torch.Tensor, rows: abc.Sequence[SamplingRow]) -> None:
    pairs = [(line, token) for line, row in enumerate(rows) for token in row.banned]
    if pairs:
        line, token = to_device(pairs, torch.int64, logits.device).unbind(dim=1)
        logits[line, token] = float("-inf")


def _cut_unlikely(logits: torch.Tensor, rows: abc.Sequence[SamplingRow]) -> None:
    """Sets logits to -inf where softmax(logits / temperature) is below min_p times its maximum."""
    some = _lines([row.params.min_p > 0 for row in rows])
    if some:
        margins = [rows[line].params.temperature * math.log(rows[line].params.min_p) for line in some]
        index = to_device(some, torch.int64, logits.device)
        values = logits[index]
        least = values.amax(dim=-1, keepdim=True) + to_device(margins, torch.float32, logits.device)[:, None]
        logits[index] = values.masked_fill(values < least, float("-inf"))


def _lines(wanted: abc.Sequence[bool]) -> list[int]:
    return [line for line, wants in enumerate(wanted) if wants]
