"""Counts of a training file's labels for each dimension."""

import math
from collections.abc import Iterator
from itertools import combinations

from panacea_train.data.training_file import TrainingFile
from panacea_train.data.training_records import Compared, Scored, Shown, disagree, scores_of


def summarise(file: TrainingFile) -> str:
    """Counts for each dimension, as a table to read."""
    judged = [record for _, record in file.records if not isinstance(record, Shown)]
    kinds = [
        (sum(isinstance(record, Scored) for record in judged), "with scores"),
        (sum(isinstance(record, Compared) for record in judged), "pairs"),
        (len(file.records) - len(judged), "to imitate"),
    ]
    listed = ", ".join(f"{count:,} {kind}" for count, kind in kinds if count)
    width = max(map(len, ("dimension", *file.dimensions)))
    rows = [f"{'dimension':{width}}  labelled   decided      ties  against another"]
    rows += [_row(name, width, judged, file.dimensions) for name in file.dimensions]
    contested = sum(any(disagree(record, *two) for two in combinations(file.dimensions, 2)) for record in judged)
    return "\n".join((f"{file.path}: {len(file.records):,} lines ({listed})", *rows, *_remarks(contested, file)))


def _row(name: str, width: int, judged: list[Scored | Compared], dimensions: tuple[str, ...]) -> str:
    labelled = decided = against = 0
    for record in judged:
        scores = scores_of(record, name)
        if not math.isnan(scores[0]):
            labelled += 1
            decided += len(set(scores)) > 1
            against += any(disagree(record, name, other) for other in dimensions if other != name)
    return f"{name:{width}}  {labelled:8,}  {decided:8,}  {labelled - decided:8,}  {against:15,}"


def _remarks(contested: int, file: TrainingFile) -> Iterator[str]:
    if contested or any(isinstance(record, Shown) and record.preference for _, record in file.records):
        yield f"{contested:,} lines in which two dimensions want different answers: they teach the model to steer."
        return
    yield (
        "In no line do two dimensions want different answers. That is right for pairs that are labelled for one "
        "dimension each.\nIf lines are labelled for all dimensions, this file cannot teach a model to steer."
    )
