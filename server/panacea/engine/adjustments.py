"""What requests change about their logits before a token is drawn: grammars, bans, biases, penalties, min-p.

The order is that of vLLM's sampler (https://docs.vllm.ai/en/v0.22.1/api/vllm/v1/sample/sampler/): tokens that may not
come (by a grammar, or before `min_tokens`), logit bias, repetition penalty, frequency penalty, presence penalty,
temperature, min-p, top-k, top-p. The last two are `panacea_kernels.draw`'s, and so is the temperature: min-p cuts here
what is unlikely at that temperature.
"""

import math
from collections import abc

import torch

from panacea.engine.sampling_row import SamplingRow
from panacea.engine.sequence import PENDING_TOKEN, Sequence
from panacea.engine.transfer import bytes_to_device, to_device


class Adjustments:
    """Applies them to a step's rows, and keeps on the device what it needs for that, a line per slot.

    The device counts the tokens that it samples itself, because the host, which may run a step ahead, does not know
    the newest one. Only what a request asks for is computed: a step whose requests ask for nothing costs nothing.
    """

    def __init__(self, num_slots: int, vocab_size: int, device: torch.device) -> None:
        self._seen = torch.zeros(num_slots, vocab_size, dtype=torch.int32, device=device)
        """Twice as often as the answer has the token, and one more if the prompt has it. A line means something only
        while its request asks for a penalty."""
        self._biases: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        """By slot: token ids int64 and what is added to their logits float32."""

    def admit(self, sequence: Sequence) -> None:
        """Writes the rows of a sequence that was given a slot, for the first time or again."""
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
            line = self._seen[slot]
            line.zero_()
            line[to_device(prompt, torch.int64, device)] = 1
            if answer:
                token_ids = to_device(answer, torch.int64, device)
                line.scatter_add_(0, token_ids, torch.full_like(token_ids, 2, dtype=torch.int32))

    def apply(self, logits: torch.Tensor, rows: abc.Sequence[SamplingRow]) -> torch.Tensor:
        """The logits (rows, vocabulary) to draw from: themselves if nobody asks for anything, else float32."""
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
        """`token_ids` (rows,) int64 are part of these requests' answers now."""
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
            # No pair of line and token occurs twice.
            logits[lines, torch.cat([ids for ids, _ in biases])] += torch.cat([values for _, values in biases])

    def _penalise(self, logits: torch.Tensor, rows: abc.Sequence[SamplingRow]) -> None:
        """Repetition of prompt and answer as in arXiv 1909.05858, section 4.1, with transformers' rule for negative
        logits; frequency and presence in the answer as in OpenAI's documentation:

            logit := logit / repetition  if it is above 0, else  logit * repetition     where the token was seen
            logit := logit - frequency * (times it was generated) - presence * (it was generated)
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
    """-inf where softmax(logits / temperature) is below min_p times its largest."""
    some = _lines([row.params.min_p > 0 for row in rows])
    if some:
        margins = [rows[line].params.temperature * math.log(rows[line].params.min_p) for line in some]
        index = to_device(some, torch.int64, logits.device)
        values = logits[index]
        least = values.amax(dim=-1, keepdim=True) + to_device(margins, torch.float32, logits.device)[:, None]
        logits[index] = values.masked_fill(values < least, float("-inf"))


def _lines(wanted: abc.Sequence[bool]) -> list[int]:
    return [line for line, wants in enumerate(wanted) if wants]
