"""Log probabilities of a prompt's own tokens, collected while the prompt is computed in chunks."""

import math
from collections import abc
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import torch

from panacea.engine.outputs import PromptLogprob
from panacea.engine.sampler import PendingTokens, Sampled
from panacea.engine.scheduler import Work
from panacea.engine.sequence import Sequence
from panacea.engine.transfer import to_device, to_host


@dataclass(frozen=True)
class WantedRows:
    """Rows of a step whose logits score the next tokens of a prompt."""

    sequence: Sequence
    start: int
    """Place in the prompt of the first row's token."""
    rows: range
    successors: abc.Sequence[int]
    """For each row, the prompt token after it."""


def wanted_rows(work: abc.Iterable[Work]) -> list[WantedRows]:
    """The rows that a step has to score. Rows that were scored before a preemption are left out."""
    wanted: list[WantedRows] = []
    first = 0
    for item in work:
        sequence, prompt_ids = item.sequence, item.sequence.request.prompt_ids
        if sequence.needs_prompt_logits:
            start = max(item.start, sequence.scored)
            stop = min(item.start + item.count, len(prompt_ids) - 1)
            if start < stop:
                rows = range(first + start - item.start, first + stop - item.start)
                wanted.append(WantedRows(sequence, start, rows, prompt_ids[start + 1 : stop + 1]))
        first += item.count
    return wanted


@dataclass(frozen=True)
class _Scored:
    """Log probabilities of some rows, on the host or being copied to it."""

    own: torch.Tensor  # (rows,)
    top_values: torch.Tensor  # (rows, most)
    top_ids: torch.Tensor  # (rows, most)

    def result(self, alternatives: int) -> list[PromptLogprob]:
        lines = zip(self.own.tolist(), self.top_ids.tolist(), self.top_values.tolist(), strict=True)
        return [
            PromptLogprob(own, tuple(zip(ids[:alternatives], values[:alternatives], strict=True)))
            for own, ids, values in lines
        ]


class PromptScores:
    """Log probabilities of each prompt so far. They are freed together with their sequence."""

    def __init__(self) -> None:
        self._scored: WeakKeyDictionary[Sequence, dict[int, _Scored]] = WeakKeyDictionary()

    def add(self, wanted: abc.Sequence[WantedRows], logits: abc.Iterable[torch.Tensor], device: torch.device) -> None:
        """Scores the wanted rows. `logits` yields their logits in parts (some rows, vocabulary).

        Each part is scored before the next one is computed, so only one of them takes memory. A step that raised and is
        launched again replaces its scores.
        """
        if not wanted:
            return
        successors = to_device([token for each in wanted for token in each.successors], torch.int64, device)
        most = max(each.sequence.request.params.prompt_logprobs or 0 for each in wanted)
        parts: list[_Scored] = []
        first = 0
        for part in logits:
            parts.append(_score(part.float(), successors[first : first + len(part)], most))
            first += len(part)
        scored = _Scored(
            to_host(torch.cat([part.own for part in parts])),
            to_host(torch.cat([part.top_values for part in parts])),
            to_host(torch.cat([part.top_ids for part in parts])),
        )
        first = 0
        for each in wanted:
            some = slice(first, first + len(each.rows))
            mine = _Scored(scored.own[some], scored.top_values[some], scored.top_ids[some])
            self._scored.setdefault(each.sequence, {})[each.start] = mine
            first += len(each.rows)

    def take(self, sequence: Sequence) -> list[_Scored]:
        """Removes and returns all log probabilities of a prompt. A prompt of one token has none."""
        return list(self._scored.pop(sequence, {}).values())


@dataclass(frozen=True)
class ScoringStep:
    """A launched step that finishes at least one prompt whose log probabilities are wanted."""

    tokens: PendingTokens
    prompts: abc.Mapping[int, abc.Sequence[_Scored]]
    """By index among the items of work that sample."""

    def result(self) -> list[Sampled]:
        """As `PendingTokens.result`. The log probabilities of this step and earlier ones arrive before the tokens."""
        sampled = self.tokens.result()
        for line, parts in self.prompts.items():
            alternatives = self.tokens.rows[line].params.prompt_logprobs or 0
            scores = tuple(score for part in parts for score in part.result(alternatives))
            finite = sampled[line].finite and all(math.isfinite(score.logprob) for score in scores)
            sampled[line] = replace(sampled[line], prompt_logprobs=scores, finite=finite)
        return sampled


def _score(logits: torch.Tensor, successors: torch.Tensor, most: int) -> _Scored:
    """Log probabilities of `successors` (rows,) int64 and of the `most` likely tokens, by logits (rows, vocabulary)
    float32."""
    # Not logsumexp: on CUDA it splits its sums by the number of rows, so a row's bits would depend on the batch.
    logprobs = logits.log_softmax(dim=-1)
    top_ids = logits.topk(min(most, logits.shape[-1]), dim=-1).indices
    return _Scored(logprobs.gather(-1, successors[:, None])[:, 0], logprobs.gather(-1, top_ids), top_ids)
