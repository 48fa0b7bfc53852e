"""Builds the client's requests, and defines how their answers are parsed."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, SupportsFloat, TypeVar, cast

from pydantic import BaseModel

from panacea_client.answers import ChatAnswer, TextAnswer
from panacea_client.information import Evaluation, Model, ModelList, Preferences, Readiness
from panacea_client.options import (
    ChatOptions,
    CompletionOptions,
    Preference,
    Question,
    SamplingOptions,
    StreamOptions,
)
from panacea_client.settings import checked_timeout_s

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
ModelT = TypeVar("ModelT", bound=BaseModel)
AnswerT = TypeVar("AnswerT", ChatAnswer, TextAnswer)

_NOT_IN_THE_BODY = ("system", "extra", "timeout")
_NOT_EXTRA = ChatOptions.__optional_keys__ | {"messages", "prompt", "preference", "stream", "stream_options"}


@dataclass(frozen=True)
class Call(Generic[T_co]):
    """One request, independent of a server."""

    method: Literal["GET", "POST"]
    path: str
    read: Callable[[bytes, str | None], T_co]
    """Parses the answer, given its body and the request's id. Raises pydantic's `ValidationError`."""
    body: bytes | None = None
    timeout_s: float | None = None
    """None for the client's timeout."""
    once: bool = False
    """Whether a failure is a valid result and must not be retried."""


def chat(question: Question, preference: Preference, options: ChatOptions) -> Call[ChatAnswer]:
    """A request for a whole answer. Raises `TypeError` or `ValueError` for invalid arguments."""
    fields = _fields(options, ChatOptions.__optional_keys__) | {"messages": _messages(question, options)}
    return _generating("/v1/chat/completions", _with_preference(fields, preference), options, _answer(ChatAnswer))


def stream(question: Question, preference: Preference, options: StreamOptions) -> Call[None]:
    """A request for a stream of events. The caller reads the stream."""
    fields = _fields(options, StreamOptions.__optional_keys__) | {"messages": _messages(question, options)}
    fields |= {"stream": True, "stream_options": {"include_usage": True}}
    return _generating("/v1/chat/completions", _with_preference(fields, preference), options, lambda _body, _id: None)


def complete(
    prompt: str | Sequence[str] | Sequence[int], preference: Preference, options: CompletionOptions
) -> Call[TextAnswer]:
    """A request for continuations of texts or token ids."""
    fields = _fields(options, CompletionOptions.__optional_keys__) | {
        "prompt": prompt if isinstance(prompt, str) else list(prompt)
    }
    return _generating("/v1/completions", _with_preference(fields, preference), options, _answer(TextAnswer))


def preferences() -> Call[Preferences]:
    return Call("GET", "/v1/preferences", _information(Preferences))


def models() -> Call[list[Model]]:
    return Call("GET", "/v1/models", lambda body, _id: ModelList.model_validate_json(body).data)


def evaluation() -> Call[Evaluation]:
    return Call("GET", "/v1/evaluation", _information(Evaluation))


def ready() -> Call[Readiness]:
    return Call("GET", "/ready", _information(Readiness), once=True)


def _information(kind: type[ModelT]) -> Callable[[bytes, str | None], ModelT]:
    return lambda body, _id: kind.model_validate_json(body)


def _answer(kind: type[AnswerT]) -> Callable[[bytes, str | None], AnswerT]:
    return lambda body, request_id: kind.model_validate_json(body).model_copy(update={"request_id": request_id})


def _generating(
    path: str, fields: dict[str, Any], options: SamplingOptions, read: Callable[[bytes, str | None], T]
) -> Call[T]:
    for name, value in (options.get("extra") or {}).items():
        if name in _NOT_EXTRA:
            raise ValueError(f"extra must not contain {name!r}: pass it as an argument, if this method has it")
        fields[name] = value
    timeout = options.get("timeout")
    timeout_s = None if timeout is None else checked_timeout_s(timeout)
    return Call("POST", path, read, json.dumps(fields, allow_nan=False).encode(), timeout_s)


def _fields(options: SamplingOptions, known: frozenset[str]) -> dict[str, Any]:
    """The fields of the body that are options with the same name."""
    unknown = next((name for name in options if name not in known), None)
    if unknown is not None:
        raise TypeError(
            f"unexpected keyword argument {unknown!r}; the options are {', '.join(sorted(known))}; "
            "pass other fields of the request as extra={...}"
        )
    fields = {name: value for name, value in options.items() if name not in _NOT_IN_THE_BODY and value is not None}
    if not isinstance(fields.get("stop", ""), str):
        fields["stop"] = list(options.get("stop") or ())
    return fields


def _messages(question: Question, options: StreamOptions) -> list[Mapping[str, Any]]:
    messages: list[Mapping[str, Any]] = (
        [{"role": "user", "content": question}] if isinstance(question, str) else list(question)
    )
    system = options.get("system")
    if system is None:
        return messages
    if any(message.get("role") in {"system", "developer"} for message in messages):
        raise ValueError("the conversation has a system message, and system= would be a second one; leave one out")
    return [{"role": "system", "content": system}, *messages]


def _with_preference(fields: dict[str, Any], preference: Preference) -> dict[str, Any]:
    if preference is None:
        return fields
    return fields | {"preference": _weights(preference)}


def _weights(preference: object) -> dict[str, float] | list[float]:
    if isinstance(preference, str):
        raise TypeError("a preference must be weights, not a string; a preset is a model id: model='<name>:<preset>'")
    if isinstance(preference, Mapping):
        weights = cast("Mapping[str, object]", preference)
        return {name: _weight(weight) for name, weight in weights.items()}
    if isinstance(preference, Iterable):
        return [_weight(weight) for weight in cast("Iterable[object]", preference)]
    raise TypeError("a preference must be a mapping from dimension to weight, or an iterable of weights")


def _weight(weight: object) -> float:
    """The weight as a float, which JSON can represent. Accepts numpy's numbers too."""
    if isinstance(weight, bool) or not isinstance(weight, SupportsFloat):
        raise TypeError("the weights of a preference must be numbers")
    number = float(weight)
    if not math.isfinite(number):
        raise ValueError("the weights of a preference must be finite")
    return number
