"""Rewards that a Python function computes."""

import inspect
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from panacea.errors import first_line
from panacea_train.prompts import Prompt
from panacea_train.rewards.reward import RewardError, ScoreProgress, about, finite

FORMS = "NAME(prompt: str, answer: str) -> float or NAME(prompt: str, answer: str, line: Prompt) -> float"


class Rule:
    """A function `f(prompt, answer)` or `f(prompt, answer, line)`.

    `prompt` is the user's last message. `line` is the whole `Prompt`: its `messages`, and its `fields` with the other
    fields of its line in the prompts' file. A function gets `line` if it has a third parameter without a default.
    """

    def __init__(self, name: str, function: Callable[..., object]) -> None:
        """`name` is its name in errors. Raises `RewardError` for a function with other parameters."""
        self._name = name
        self._function = function
        self._takes_line = _takes_line(name, function)

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str], report: ScoreProgress) -> list[float]:
        """One call for each answer. Raises `RewardError` if the function raises, or does not return a number."""
        scores: list[float] = []
        for prompt, answer in zip(prompts, answers, strict=True):
            try:
                value = self._function(prompt.text, answer, *((prompt,) if self._takes_line else ()))
            except (Exception, SystemExit) as error:
                raise RewardError(f"{self._name} failed: {_told(error)}, {about(prompt, answer)}") from None
            scores.append(finite(value, self._name, prompt, answer))
            report(1)
        return scores


def read_rule(name: str, place: str) -> Rule:
    """The rule at `place`, which is FILE.py:function or package.module:function. Raises `RewardError`."""
    module_name, _, function_name = place.rpartition(":")
    if not (module_name and function_name):
        raise RewardError(
            f"{name} does not name a function: write python:FILE.py:function or python:package.module:function"
        )
    try:
        module = _from_file(Path(module_name).expanduser()) if module_name.endswith(".py") else _imported(module_name)
    except (Exception, SystemExit) as error:
        raise RewardError(f"{name}: {module_name} cannot be imported: {_told(error)}") from None
    function: Any = getattr(module, function_name, None)
    if not callable(function):
        found = "has no function" if function is None else "has no callable named"
        raise RewardError(f"{name}: {module_name} {found} {function_name}")
    return Rule(name, function)


def _imported(name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:  # unlike `python`, an installed command does not import from the current folder
        sys.path.append(here)
    return import_module(name)


def _from_file(file: Path) -> ModuleType:
    """The module in `file`, which may import its neighbours. It is run once, even if several functions are used."""
    if not file.is_file():
        raise FileNotFoundError("no such file")
    name = f"panacea_reward_{sha256(str(file.resolve()).encode()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    folder = str(file.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    spec = spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _takes_line(name: str, function: Callable[..., object]) -> bool:
    try:
        signature = inspect.signature(function)
    except ValueError:  # some functions written in C have none
        return False
    if not inspect.iscoroutinefunction(function):
        for arguments in ("prompt", "answer"), ("prompt", "answer", "line"):
            with suppress(TypeError):
                signature.bind(*arguments)
                return len(arguments) == 3
    raise RewardError(f"{name} cannot be called as a reward: it must be {FORMS}")


def _told(error: BaseException) -> str:
    """One line with the type, the message, and the innermost line of the user's code."""
    text = f"{type(error).__name__}: {first_line(error)}" if str(error).strip() else type(error).__name__
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]
    return f"{text} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else text


def _is_users(filename: str) -> bool:
    library = ("site-packages", "dist-packages", "lib/python", "<frozen")
    return filename != __file__ and not any(part in filename for part in library)
