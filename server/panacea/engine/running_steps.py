"""The steps that were launched and whose tokens nobody has waited for yet."""

import logging
import traceback
from collections import abc, deque

from panacea.engine.sampler import Sampled
from panacea.engine.scheduler import Scheduler, Work
from panacea.engine.sequence import Sequence
from panacea.engine.step_runner import RunningStep, StepRunner
from panacea.errors import is_contained

logger = logging.getLogger(__name__)


class RunningSteps:
    """A queue of launched steps, oldest first, with counts of all steps so far."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._queue: deque[tuple[list[Sequence], RunningStep]] = deque()
        self.launched = 0
        """Forward passes so far."""
        self.most_requests = 0
        """Most requests in one step."""
        self.most_preferences = 0
        """Most different preferences in one step. The base counts as one."""

    def __len__(self) -> int:
        return len(self._queue)

    def launch(self, runner: StepRunner, work: abc.Sequence[Work]) -> BaseException | None:
        """Launches a step. Returns what it raised, if the same work may be launched again. Else raises it."""
        try:
            step = runner.launch(work)
        except BaseException as error:
            if not is_contained(error):
                raise
            logger.exception("a step with %d requests raised", len(work))
            traceback.clear_frames(error.__traceback__)  # they hold the step's tensors
            if not runner.is_usable_after(error):
                raise
            return error
        self._queue.append(([item.sequence for item in work if item.samples], step))
        self._scheduler.advance(work)
        self._count(work)
        return None

    def wait(self) -> abc.Iterable[tuple[Sequence, Sampled]]:
        """Waits for the oldest step, and removes it. Returns its tokens, each with its sequence."""
        sequences, step = self._queue.popleft()
        return zip(sequences, step.result(), strict=True)

    def _count(self, work: abc.Sequence[Work]) -> None:
        self.launched += 1
        self.most_requests = max(self.most_requests, len(work))
        preferences = {item.sequence.request.preference for item in work}
        self.most_preferences = max(self.most_preferences, len(preferences))
