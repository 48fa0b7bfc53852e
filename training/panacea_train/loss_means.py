"""The means of a step's loss and its parts between two lines of the log, kept in checkpoints."""

from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from panacea_train.step_loss import LossParts


class LossMeans(TrainerCallback, ExportableState):
    """Sums over the steps since the last line of the log.

    `Trainer` forgets its own sum when a run is resumed between two lines: the next line would be a mean of fewer steps
    than in an uninterrupted run. These sums are in the checkpoint, and `on_train_begin` reads them.
    """

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Tensor, int]] = {}

    def add(self, parts: LossParts) -> None:
        """Adds a step. Sums stay on their device, so that no step waits for it."""
        for name, value in parts._asdict().items():
            if value is not None:
                total, count = self._sums.get(name, (torch.zeros_like(value), 0))
                self._sums[name] = (total + value, count + 1)

    def so_far(self) -> dict[str, float]:
        """The means since the last line of the log."""
        return {name: total.item() / count for name, (total, count) in self._sums.items()}

    def take(self) -> dict[str, float]:
        """The means; the sums begin anew."""
        means = self.so_far()
        self._sums = {}
        return means

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The last step is logged, and thus checked, also where it does not fill a line."""
        if state.global_step >= state.max_steps:
            control.should_log = True

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps. A float holds every float32 and float64 exactly."""
        sums = {name: [total.item(), count, str(total.dtype)] for name, (total, count) in self._sums.items()}
        return {"args": {}, "attributes": {"sums": sums}}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Goes on with the sums of the checkpoint that the run continues from; a new run has none."""
        kept: dict[str, Any] = state.stateful_callbacks.get(type(self).__name__, {})
        self._sums = {
            name: (torch.tensor(total, dtype=getattr(torch, dtype.removeprefix("torch.")), device=args.device), count)
            for name, (total, count, dtype) in kept.get("attributes", {}).get("sums", {}).items()
        }
