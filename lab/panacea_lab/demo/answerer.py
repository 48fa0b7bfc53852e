"""Answers to the world's questions, many at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from panacea.config import EngineConfig
from panacea.engine.engine import Engine
from panacea.engine.sampling_params import SamplingParams
from panacea.preference import Preference
from panacea_lab.demo.demo_chat import encode, prompt_text
from panacea_lab.world.conversations import Turn
from panacea_train.evaluation import answering

MAX_TOKENS = 200
"""Longer than any answer of the world: an answer cut off here is a broken one."""

Report = Callable[[float, dict[str, float]], None]
"""Gets the share of a stage that is done, and figures worth showing."""


@dataclass(frozen=True)
class Ask:
    """One answer to be sampled. Asks with the same `seed` share their noise, whatever their preference."""

    question: str
    preference: Preference | None
    temperature: float
    seed: int
    system: str | None = None
    earlier: tuple[Turn, ...] = ()
    """What was said before the question."""


class Answerer:
    """Answers questions with a base model and perhaps an adapter."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, base: Path, adapter: Path | None = None) -> None:
        self._tokenizer = tokenizer
        self._engine = Engine.load(EngineConfig(model=base, adapter=adapter, max_batch=64, threads=1))

    def answer(self, asks: Sequence[Ask], report: Report) -> list[str]:
        """The answers in the order of `asks`; all of them share the engine's batches."""
        replies = answering.answer_all(
            self._engine,
            [
                answering.Ask(
                    encode(self._tokenizer, prompt_text(ask.question, ask.system, ask.earlier)),
                    ask.preference,
                    SamplingParams(max_tokens=MAX_TOKENS, temperature=ask.temperature, seed=ask.seed),
                )
                for ask in asks
            ],
            lambda done, _: report(done / len(asks), {"answers": done}),
        )
        texts: list[str] = self._tokenizer.batch_decode(
            [reply.token_ids for reply in replies], skip_special_tokens=False
        )
        return texts
