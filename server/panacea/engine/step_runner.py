"""The interface of a runner, as the engine uses it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from panacea.engine.scheduler import Work

if TYPE_CHECKING:
    from panacea.engine.sampler import Sampled


class RunningStep(Protocol):
    """A launched step."""

    def result(self) -> "list[Sampled]":
        """One token for each item of work that samples, in the same order. Waits until the step is done."""
        ...


class StepRunner(Protocol):
    """`Runner`, or a small fake in a test."""

    @property
    def steps_ahead(self) -> int:
        """How many further steps are launched before the engine waits for the oldest one's tokens.

        0 on a CPU. 1 on a GPU, where the host prepares step n + 1 while step n runs.
        """
        ...

    def launch(self, work: Sequence[Work]) -> RunningStep:
        """Starts one forward over `work` (single tokens first).

        If it raises, the same work may be launched again, whole or in parts, once the host knows all tokens.
        """
        ...

    def is_usable_after(self, fault: BaseException, /) -> bool:
        """Whether the device and the model still compute after `launch` raised `fault`."""
        ...
