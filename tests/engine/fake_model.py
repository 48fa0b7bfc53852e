"""A model of a few lines under a real engine, whose answers are known beforehand."""

from collections.abc import Sequence
from dataclasses import dataclass

from panacea.engine.engine import Engine
from panacea.engine.outputs import EngineInfo
from panacea.engine.prefix_keys import ModelIdentity
from panacea.engine.sampler import Sampled
from panacea.engine.scheduler import Scheduler, Work
from panacea.engine.sequence import PENDING_TOKEN
from panacea.preference import Preference

VOCABULARY = 97
EOS = 0
IDENTITY = ModelIdentity(b"a base", b"an adapter")

Entry = tuple[int, Preference | None]
"""What a token's keys and values depend on, besides the tokens before it."""


def next_token(past: Sequence[Entry]) -> int:
    """The fake model: every token before, and its preference, decide the next one. Never the end of sequence.

    The same in every process. The hash of None is not.
    """
    state = 0
    for token, preference in past:
        state = (state * 31 + token + 7 + hash(preference or ())) % 1_000_003
    return 1 + state % (VOCABULARY - 1)


def answer(prompt: Sequence[int], preference: Preference | None, max_tokens: int) -> list[int]:
    """What an engine must say."""
    past: list[Entry] = [(token, preference) for token in prompt]
    for _ in range(max_tokens):
        past.append((next_token(past), preference))
    return [token for token, _ in past[len(prompt) :]]


@dataclass
class Launched:
    """A step of the fake model. Tells its tokens once they are asked for."""

    tokens: list[Sampled]

    def result(self) -> list[Sampled]:
        return self.tokens


class PagedFakeModel:
    """Keeps tokens where a real model keeps keys and values, and reads the past from nowhere else.

    With `steps_ahead` it knows each slot's last token before the engine does, as a GPU would. A step in which a request
    computes `culprit` raises, when half of its writes are done and some of the new last tokens are known.
    """

    def __init__(self, block_size: int, steps_ahead: int, culprit: int | None = None) -> None:
        self.block_size = block_size
        self.steps_ahead = steps_ahead
        self.cache: dict[tuple[int, int], Entry] = {}
        self.last_tokens: dict[int | None, int] = {}
        self.steps: list[list[Work]] = []
        self.culprit = culprit
        self.usable = True
        self.probes = 0
        self.without_slot = 0
        """Launched items whose sequences had ended before."""

    def is_usable_after(self, _fault: BaseException) -> bool:
        self.probes += 1
        return self.usable

    def launch(self, work: Sequence[Work]) -> Launched:
        self.steps.append(list(work))
        self.without_slot += sum(item.sequence.slot is None for item in work)
        sampled: list[Sampled] = []
        for item in work:
            for position, token in enumerate(item.sequence.tokens(item.start, item.count), item.start):
                known = self.last_tokens[item.sequence.slot] if token == PENDING_TOKEN else token
                if known == self.culprit:
                    self._break(work, item)
                self.cache[self._place(item, position)] = (known, item.sequence.request.preference)
        for item in work:  # after all writes, as they may be to blocks that others read
            if item.samples:
                past = [self.cache[self._place(item, position)] for position in range(item.start + item.count)]
                token = next_token(past)
                self.last_tokens[item.sequence.slot] = token
                sampled.append(Sampled(token, None, ()))
        return Launched(sampled)

    def _break(self, work: Sequence[Work], culprit: Work) -> None:
        """Raises as a real step may: some keys and values are written, and some tokens are drawn, all of them wrong."""
        for item in work:
            if item.sequence is not culprit.sequence:
                for position in range(item.start, item.start + item.count):
                    self.cache[self._place(item, position)] = (VOCABULARY, None)
                if item.samples:
                    self.last_tokens[item.sequence.slot] = VOCABULARY
        raise RuntimeError("this token cannot be computed")

    def _place(self, item: Work, position: int) -> tuple[int, int]:
        return item.sequence.blocks[position // self.block_size], position % self.block_size


def make_engine(
    num_blocks: int = 8,
    block_size: int = 4,
    max_batch: int = 4,
    max_step_tokens: int = 8,
    steps_ahead: int = 0,
    *,
    cached: bool = False,
    culprit: int | None = None,
) -> tuple[Engine, PagedFakeModel]:
    """An engine over a fake model, with a prefix cache if it is asked for. For `culprit` see
    `PagedFakeModel`."""
    model = PagedFakeModel(block_size, steps_ahead, culprit)
    identity = IDENTITY if cached else None
    scheduler = Scheduler(num_blocks, block_size, max_batch, max_step_tokens, 10_000, identity)
    info = EngineInfo(
        context_length=scheduler.context_length,
        vocab_size=VOCABULARY,
        eos_token_ids=(EOS,),
        block_size=block_size,
        num_blocks=num_blocks,
        max_batch=max_batch,
        device="cpu",
        dtype="float32",
        parameters=0,
    )
    return Engine(model, scheduler, info, dimensions=2), model
