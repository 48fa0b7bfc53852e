"""The device's tables of running requests: preferences, blocks, last tokens. Each has one row per slot."""

from collections import abc

import torch

from panacea.engine.adjustments import Adjustments
from panacea.engine.scheduler import Work
from panacea.engine.sequence import Sequence
from panacea.engine.transfer import to_device
from panacea.model.loader import LoadedModel


class SlotTables:
    """Tables on the device. A step reads a request's state in the row of its slot.

    The tables never move in memory, so that CUDA graphs can read them. Only changes are written: a preference at
    admission, a block when the sequence gets it. The device itself writes the last token. Row 0 belongs to no request:
    it holds the bare base and the scratch block.
    """

    def __init__(self, model: LoadedModel, num_slots: int, most_blocks: int, scratch_block: int) -> None:
        self.preferences = model.steering.table
        """(slots, rank) float32: the column weights. A row of zeros is exactly the base."""
        self.blocks = torch.full((num_slots, most_blocks), scratch_block, dtype=torch.int32, device=model.device)
        """(slots, most blocks) int32: each sequence's blocks, in order."""
        self.last_tokens = torch.zeros(num_slots, dtype=torch.int64, device=model.device)
        """(slots,) int64: the token that was sampled last."""
        self.adjustments = Adjustments(num_slots, model.vocab_size, model.device)
        """Tables of biases and penalties."""
        self._model = model
        self._owners: dict[int, tuple[Sequence, int]] = {}
        self._num_blocks: dict[int, int] = {}

    def update(self, work: abc.Sequence[Work]) -> None:
        """Writes the changes of the sequences in `work`."""
        entries: list[tuple[int, int, int]] = []
        for item in work:
            sequence = item.sequence
            assert sequence.slot is not None, "only admitted sequences are scheduled"
            owner = (sequence, sequence.admissions)
            if self._owners.get(sequence.slot) != owner:
                self._owners[sequence.slot] = owner
                self._num_blocks[sequence.slot] = 0
                self._write_preference(sequence)
                self.adjustments.admit(sequence)
            known = self._num_blocks[sequence.slot]
            if known < len(sequence.blocks):
                entries += [(sequence.slot, i, sequence.blocks[i]) for i in range(known, len(sequence.blocks))]
                self._num_blocks[sequence.slot] = len(sequence.blocks)
        if entries:
            slot, index, block = to_device(entries, torch.int64, self.blocks.device).unbind(dim=1)
            self.blocks[slot, index] = block.to(torch.int32)

    def forget(self, work: abc.Sequence[Work]) -> None:
        """The next `update` writes everything anew for the sequences in `work`."""
        for item in work:
            self._owners.pop(item.sequence.slot or 0, None)

    def _write_preference(self, sequence: Sequence) -> None:
        if sequence.request.preference is None:
            self.preferences[sequence.slot] = 0
            return
        assert self._model.adapter is not None, "the engine rejects preferences without an adapter"
        weights = self._model.adapter.config.column_weights(sequence.request.preference)
        self.preferences[sequence.slot] = to_device(weights, torch.float32, self.preferences.device)
