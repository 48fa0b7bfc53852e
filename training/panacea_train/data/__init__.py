"""Training files: read, checked, counted, and turned into a model's tokens."""

from panacea_train.data.encoding import ConversationEncoder
from panacea_train.data.examples import Objective, to_examples
from panacea_train.data.file import Problem, TrainingFile, read_training_file
from panacea_train.data.records import Compared, Record, Scored, Shown
from panacea_train.data.summary import summarise

__all__ = [
    "Compared",
    "ConversationEncoder",
    "Objective",
    "Problem",
    "Record",
    "Scored",
    "Shown",
    "TrainingFile",
    "read_training_file",
    "summarise",
    "to_examples",
]
