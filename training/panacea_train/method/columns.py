"""The relation between the trained singular values and the E of the file, which has one for each column.

In the paper each of the k shared columns has its own singular value, and all preference columns of one matrix share one
learned scalar s. So k + 1 values are trained, in this order, and E repeats s.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from panacea.model.adapter_config import SHARED


def trained_rows(preference_columns: Sequence[int]) -> Tensor:
    """(r,) int64: the trained singular value that each column takes."""
    shared = sum(column == SHARED for column in preference_columns)
    own = iter(range(shared))
    return torch.tensor([next(own) if column == SHARED else shared for column in preference_columns])


def expand(trained: Tensor, preference_columns: Sequence[int]) -> Tensor:
    """(k + 1, 1) -> E (r, 1). A complete E is returned unchanged."""
    if trained.shape[0] == len(preference_columns):
        return trained
    return trained[trained_rows(preference_columns).to(trained.device)]


def contract(e: Tensor, preference_columns: Sequence[int]) -> Tensor | None:
    """E (r, 1) -> (k + 1, 1); None if its preference columns differ, so that one scalar cannot represent them."""
    rows = trained_rows(preference_columns).to(e.device)
    trained = e.new_empty(int(rows.max()) + 1, 1)
    trained[rows] = e
    return trained if torch.equal(trained[rows], e) else None
