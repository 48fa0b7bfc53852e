"""What there is to do: making the pairs, and training and asking one method at one learning rate."""

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from panacea.preference import Preference
from panacea_lab.demo.answerer import Answerer
from panacea_lab.demo.demo_pairs import ComparedAnswers, make_pairs, sample_candidates
from panacea_lab.demo.examination import ask_everywhere
from panacea_lab.demo.job_stages import StageProgress
from panacea_lab.reproduce.compared_methods import Lesson, Method, methods
from panacea_lab.reproduce.comparison_questions import QUESTIONS_SEED, final_questions, tuning_questions
from panacea_lab.reproduce.comparison_results import JudgedAnswers
from panacea_lab.reproduce.comparison_settings import ReproduceSettings
from panacea_lab.reproduce.rate_search import Rates
from panacea_lab.reproduce.worker_pool import step
from panacea_lab.world.world_judge import Judge
from panacea_lab.world.world_texts import load_world
from panacea_train.answer_logprobs import reference_logprobs
from panacea_train.training_examples import PreferencePair

PAIRS_SEED = 0
PAIRS_STEPS = 100
"""In which the progress bar shows how many pairs are made."""
BASE = "base"
"""Stands for no method: the base alone, where all of them begin."""


@dataclass(frozen=True)
class ComparisonWork:
    """Where everything is, and what was set."""

    base: Path
    out: Path
    settings: ReproduceSettings

    def pairs(self) -> list[PreferencePair]:
        """What all methods learn from: the base's own answers, compared."""
        comparisons = msgspec.json.decode(self._candidates.read_bytes(), type=list[ComparedAnswers])
        return make_pairs(comparisons, self.tokenizer(), self.settings.pairs, PAIRS_SEED)

    def make_pairs(self) -> None:
        """Samples the answers, and the log-probabilities that DPO compares with."""
        answerer = Answerer(self.tokenizer(), self.base)
        found = sample_candidates(load_world(), answerer, self.settings.pairs, PAIRS_SEED, _in_steps(PAIRS_STEPS))
        self._candidates.write_bytes(msgspec.json.encode(found))
        model = LlamaForCausalLM.from_pretrained(self.base, dtype=torch.float32)
        np.save(self._reference, reference_logprobs(model, self.pairs(), progress=False))

    def reference(self) -> NDArray[np.float32]:
        """The answers' log-probabilities under the base, (pairs, 2)."""
        return np.asarray(np.load(self._reference), dtype=np.float32)

    def tokenizer(self) -> PreTrainedTokenizerFast:
        tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(self.base)
        return tokenizer

    @property
    def _candidates(self) -> Path:
        return self.out / "candidates.json"

    @property
    def _reference(self) -> Path:
        return self.out / "reference.npy"


@dataclass(frozen=True)
class TrainingJob:
    """One method, trained at these rates from one seed, and asked."""

    work: ComparisonWork
    method: str
    rates: Rates
    seed: int
    is_tuning: bool

    @property
    def name(self) -> str:
        return f"{'tuning' if self.is_tuning else 'final'}-{self.method}-{self.rates}-{self.seed}"

    @property
    def plans(self) -> list[tuple[float, int]]:
        """Temperatures, and how many answers at each."""
        settings = self.work.settings
        return [(0.0, 1)] if self.is_tuning else [(0.0, 1), (settings.temperature, settings.samples)]

    def __call__(self) -> None:
        """Trains and asks."""
        work = self.work
        adapter: Path | None = None
        preferences: list[Preference | None] = [None]
        if self.method != BASE:
            method = method_named(self.method, work.settings)
            lesson = Lesson(work.base, work.pairs(), work.reference(), work.settings, self.rates, self.seed)
            adapter = method.train(lesson, self._folder, step)
            preferences = [served for _, served in method.points(work.settings)]
        else:
            self._folder.mkdir(exist_ok=True)
        answers = ask_everywhere(
            Judge(load_world()),
            Answerer(work.tokenizer(), work.base, adapter),
            tuning_questions(work.settings) if self.is_tuning else final_questions(work.settings),
            preferences,
            self.plans,
            QUESTIONS_SEED,
            lambda _share, _figures: None,
        )
        self._answers.write_bytes(msgspec.json.encode(answers))

    def answers(self) -> JudgedAnswers:
        """What was said when it was done."""
        return msgspec.json.decode(self._answers.read_bytes(), type=JudgedAnswers)

    @property
    def _folder(self) -> Path:
        return self.work.out / self.name

    @property
    def _answers(self) -> Path:
        return self._folder / "answers.json"


def method_named(name: str, settings: ReproduceSettings) -> Method:
    return next(method for method in methods(settings) if method.name == name)


def _in_steps(count: int) -> StageProgress:
    """Makes a step of each of `count` equal shares of what is done."""
    done = 0

    def report(share: float, _: dict[str, float]) -> None:
        nonlocal done
        while done < int(share * count):
            done += 1
            step()

    return report
