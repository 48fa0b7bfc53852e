"""Many answers at once, from the same engine that serves them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from panacea.engine.engine import Engine
from panacea.engine.sampling_params import SamplingParams
from panacea.errors import RequestFailedError
from panacea.preference import Preference

Report = Callable[[int, int], None]
"""Hears how many answers are complete by now, and how many tokens there are in all."""


@dataclass(frozen=True)
class Ask:
    """One answer to be generated."""

    prompt_ids: Sequence[int]
    preference: Preference | None
    """None is the bare base."""
    params: SamplingParams


@dataclass(frozen=True)
class Reply:
    """What was generated, without the token that ended it."""

    token_ids: list[int]
    cut_off: bool
    """`max_tokens` were generated, and no end among them."""


class AskFailedError(RequestFailedError):
    """One answer could not be computed."""

    def __init__(self, index: int, message: str) -> None:
        """`index`: of the ask among all."""
        super().__init__(message)
        self.index = index


def answer_all(
    engine: Engine, asks: Sequence[Ask], report: Report, completed: Callable[[int, Reply], None] | None = None
) -> list[Reply]:
    """The replies in the order of `asks`, in one stream of batches: different preferences share each of them.

    `completed` hears of each reply when it is complete, with the index of its ask. Raises `RequestError` if
    one could never be computed, before any is, and `AskFailedError` if one fails.
    """
    for index, ask in enumerate(asks):
        engine.add(str(index), ask.prompt_ids, ask.preference, ask.params)
    collected: list[list[int]] = [[] for _ in asks]
    replies: dict[int, Reply] = {}
    tokens = 0
    while engine.has_work:
        for token in engine.step():
            index = int(token.request_id)
            if token.finish_reason != "stop":
                collected[index].append(token.token_id)
                tokens += 1
            if token.finish_reason is not None:
                replies[index] = Reply(collected[index], cut_off=token.finish_reason == "length")
                if completed is not None:
                    completed(index, replies[index])
        for failure in engine.take_failures():
            raise AskFailedError(int(failure.request_id), failure.message)
        report(len(replies), tokens)
    return [replies[index] for index in range(len(asks))]
