"""What the engine needs of a runner."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from panacea.engine.scheduler import Work

if TYPE_CHECKING:
    from panacea.engine.sampler import Sampled


class RunningStep(Protocol):
    """A step that was launched."""

    def result(self) -> "list[Sampled]":
        """One token for each item of work that samples, in their order. Waits until the step is done."""
        ...


class StepRunner(Protocol):
    """`Runner`, or a model of a few lines in a test."""

    @property
    def steps_ahead(self) -> int:
        """How many steps are launched before the engine waits for the oldest one's tokens. 1 where a device works
        beside the host: the host then prepares step n + 1 while step n runs."""
        ...

    def launch(self, work: Sequence[Work]) -> RunningStep:
        """Starts one forward over `work` (single tokens first)."""
        ...
