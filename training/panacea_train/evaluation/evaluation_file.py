"""Reading and writing `evaluation.json`, strictly by the schema in `panacea.evaluation`."""

from pathlib import Path
from typing import Any

import msgspec

from panacea.evaluation import FORMAT_VERSION, Evaluation

EVALUATION_FILE = "evaluation.json"
"""The name that a server looks for beside an adapter."""


def load_evaluation(path: Path) -> Evaluation:
    """The evaluation in `path`.

    Raises `msgspec.ValidationError` if the file does not follow the schema, has another version, or has a field that is
    not in the schema: the field would be lost when the evaluation is written again.
    """
    content: Any = msgspec.json.decode(path.read_bytes())
    version = content.get("format_version", FORMAT_VERSION) if isinstance(content, dict) else FORMAT_VERSION
    if version != FORMAT_VERSION:
        raise msgspec.ValidationError(f"format_version is {version}, not {FORMAT_VERSION}")
    evaluation = msgspec.convert(content, Evaluation)
    _refuse_unknown_fields(content, msgspec.to_builtins(evaluation))
    return evaluation


def save_evaluation(evaluation: Evaluation, path: Path) -> None:
    """Writes `evaluation` to `path`. Raises `OSError`."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(evaluation), indent=1) + b"\n")


def _refuse_unknown_fields(content: Any, known: Any) -> None:
    """Compares the file's objects with what the schema kept of them."""
    if isinstance(content, dict):
        for name, value in content.items():
            if name not in known:
                raise msgspec.ValidationError(f"the schema has no field {name}: remove it")
            _refuse_unknown_fields(value, known[name])
    elif isinstance(content, list):
        for value, kept in zip(content, known, strict=True):
            _refuse_unknown_fields(value, kept)
