"""Evaluation of steerable models: what they were asked, what they said, and what that was worth."""

from panacea_train.evaluation.evaluation_file import load_evaluation, save_evaluation
from panacea_train.evaluation.evaluation_run import AnswerRecord, EvaluationRun, read_run, write_run
from panacea_train.evaluation.example_answers import choose_examples
from panacea_train.evaluation.sweep_summary import Answered, SweepAnswers, summarise

__all__ = [
    "AnswerRecord",
    "Answered",
    "EvaluationRun",
    "SweepAnswers",
    "choose_examples",
    "load_evaluation",
    "read_run",
    "save_evaluation",
    "summarise",
    "write_run",
]
