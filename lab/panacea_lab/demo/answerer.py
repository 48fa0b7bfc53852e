"""Answers to the world's questions, many at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from panacea.config import EngineConfig
from panacea.engine.engine import Engine
from panacea.engine.outputs import Completion
from panacea.engine.request import Request
from panacea.engine.sampling_params import SamplingParams
from panacea.preference import Preference
from panacea.text.chat_template import ChatMessage
from panacea_lab.demo.demo_chat import encode, prompt_text
from panacea_lab.demo.job_stages import StageProgress

MAX_TOKENS = 200
"""Longer than any answer of the world: an answer that is cut off here is broken."""


@dataclass(frozen=True)
class DemoQuestion:
    """A question to be answered once. Equal seeds draw the same noise, at any preference."""

    question: str
    preference: Preference | None
    temperature: float
    seed: int
    system: str | None = None
    earlier: tuple[ChatMessage, ...] = ()
    """The messages before the question."""


class Answerer:
    """Answers questions with a base model and perhaps an adapter."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, base: Path, adapter: Path | None = None) -> None:
        self._tokenizer = tokenizer
        self._engine = Engine.load(EngineConfig(model=base, adapter=adapter, max_batch=64, threads=1))

    def answer(self, asked: Sequence[DemoQuestion], report: StageProgress) -> list[str]:
        """The answers in the order of `asked`; all of them share the engine's batches."""
        done = 0

        def completed(_index: int, _answer: Completion) -> None:
            nonlocal done
            done += 1
            report(done / len(asked), {"answers": done})

        answers = self._engine.generate([self._request(question) for question in asked], completed)
        texts: list[str] = self._tokenizer.batch_decode(
            [answer.text_ids for answer in answers], skip_special_tokens=False
        )
        return texts

    def _request(self, asked: DemoQuestion) -> Request:
        prompt_ids = encode(self._tokenizer, prompt_text(asked.question, asked.system, asked.earlier))
        params = SamplingParams(max_tokens=MAX_TOKENS, temperature=asked.temperature, seed=asked.seed)
        return Request(prompt_ids, asked.preference, params)
