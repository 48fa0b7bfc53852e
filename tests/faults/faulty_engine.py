"""The engine's process over a model of a few lines, with faults that prompts bring about.

    python -m tests.faults.faulty_engine

Everything but the model is real: engine, scheduler, process and messages. What needs torch is left out, so that a
process starts in a fraction of a second.
"""

import ctypes
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

STEP_S = 0.004
VOCABULARY = 354
MAX_BATCH = 8
NUM_BLOCKS = 256
CONTEXT = 2048

# A prompt that begins with one of these tokens ...
BREAKS = 300  # ... makes this forward and all after it raise,
RAISES = 301  # ... makes the forward raise,
HANGS = 302  # ... never return,
HANGS_WITH_THE_INTERPRETER = 303  # ... never return, and let no other thread run,
IS_NOT_FINITE = 304  # ... give logits for this request alone that are no numbers, after some good ones,
CANNOT_BE_ADDED = 305  # ... is one that the engine trips over when it takes it in.


@dataclass(frozen=True)
class Sampled:
    """As in `panacea.engine.sampler`, which imports torch."""

    token_id: int
    logprob: float | None = None
    top_logprobs: tuple[tuple[int, float], ...] = ()
    prompt_logprobs: None = None
    finite: bool = True
    allowed: bool = True


@dataclass
class Launched:
    """A step that is done."""

    tokens: list[Sampled]

    def result(self) -> list[Sampled]:
        return self.tokens


class FaultyModel:
    """Says tokens that follow from the prompt's last one, each step in the same short time."""

    steps_ahead = 0

    def __init__(self) -> None:
        self._is_broken = False

    def is_usable_after(self, _fault: BaseException) -> bool:
        return not self._is_broken

    def launch(self, work: Sequence[Any]) -> Launched:
        time.sleep(STEP_S)
        for item in work:
            match item.sequence.request.prompt_ids[0]:
                case _ if item.sequence.num_outputs < 3:
                    pass
                case token if token == BREAKS:
                    self._is_broken = True
                    raise RuntimeError("an illegal memory access, say")
                case token if token == RAISES:
                    raise ValueError("this request cannot be computed")
                case token if token == HANGS:
                    time.sleep(3600)
                case token if token == HANGS_WITH_THE_INTERPRETER:
                    ctypes.PyDLL(None).sleep(3600)
                case _:
                    pass
        return Launched([self._sampled(item.sequence) for item in work if item.samples])

    def _sampled(self, sequence: Any) -> Sampled:
        prompt_ids = sequence.request.prompt_ids
        broken = prompt_ids[0] == IS_NOT_FINITE and sequence.num_outputs >= 3
        token = 5 + (prompt_ids[-1] * 7 + sequence.num_outputs * 3) % (VOCABULARY - 5)
        return Sampled(token, finite=not broken)


def _without_torch() -> Any:
    """The real engine, with stand-ins for the modules around it that import torch."""
    for name, member in {"runner": "Runner", "sampler": "Sampled", "proof": "prove"}.items():
        module = ModuleType(f"panacea.engine.{name}")
        setattr(module, member, Sampled)
        sys.modules[module.__name__] = module
    loader: Any = ModuleType("panacea.model.loader")
    loader.LoadedModel = loader.load_model = object
    sys.modules[loader.__name__] = loader
    from panacea.engine import engine

    assert "torch" not in sys.modules, "a module of the engine imports torch: give it a stand-in"
    return engine


def main() -> None:
    engine_module = _without_torch()
    from panacea.config import EngineConfig
    from panacea.engine import process
    from panacea.engine.outputs import EngineInfo
    from panacea.engine.request import Request
    from panacea.engine.scheduler import Scheduler

    class FaultyEngine(engine_module.Engine):  # type: ignore[misc, name-defined]
        @classmethod
        def load(cls, config: EngineConfig) -> "FaultyEngine":
            if config.model.name == "gone":
                raise OSError("the disk is gone")
            scheduler = Scheduler(NUM_BLOCKS, config.block_size, MAX_BATCH, config.max_step_tokens, CONTEXT)
            info = EngineInfo(CONTEXT, VOCABULARY, (1,), config.block_size, NUM_BLOCKS, MAX_BATCH, "cpu", "float32", 1)
            return cls(FaultyModel(), scheduler, info, 3, queue_timeout_s=config.queue_timeout_s)

        def _check(self, request: Request) -> None:
            if list(request.prompt_ids)[:1] == [CANNOT_BE_ADDED]:
                raise ZeroDivisionError
            super()._check(request)

    engine_module.Engine = FaultyEngine
    process.main()


if __name__ == "__main__":
    main()
