"""Training files: reading, checking and counting (without a model), and encoding for a model."""

from panacea_train.data.data_summary import summarise
from panacea_train.data.json_lines import Problem
from panacea_train.data.training_file import TrainingFile, read_training_file
from panacea_train.data.training_records import Compared, Record, Scored, Shown

__all__ = [
    "Compared",
    "Problem",
    "Record",
    "Scored",
    "Shown",
    "TrainingFile",
    "read_training_file",
    "summarise",
]
