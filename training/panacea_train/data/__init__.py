"""Training files: read, checked and counted (without any model), and then turned into a model's tokens."""

from panacea_train.data.file import TrainingFile, read_training_file
from panacea_train.data.json_lines import Problem
from panacea_train.data.records import Compared, Message, Record, Scored, Shown
from panacea_train.data.summary import summarise

__all__ = [
    "Compared",
    "Message",
    "Problem",
    "Record",
    "Scored",
    "Shown",
    "TrainingFile",
    "read_training_file",
    "summarise",
]
