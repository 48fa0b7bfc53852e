"""Base classes and field types of request and response bodies."""

import math
from collections.abc import Container, Iterable
from typing import Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict
from pydantic_core import PydanticCustomError


class Documented(BaseModel):
    """Base of all bodies. The docstring below a field is its description in the OpenAPI document."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class Strict(Documented):
    """Base of all request bodies. Unknown fields, NaN and Infinity are errors."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


def only(*allowed: Any) -> AfterValidator:
    """For an unsupported field of OpenAI's: accepts null and the `allowed` values only, which have no effect."""
    shown = " or ".join(["null", *(repr(value).replace("'", '"') for value in allowed)])

    def check(value: Any) -> Any:
        if value is None or value in allowed:
            return value
        raise PydanticCustomError(
            "unsupported", "is not supported by this server beyond {allowed}; leave it out", {"allowed": shown}
        )

    return AfterValidator(check)


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _as_parts(value: Any) -> Any:
    if isinstance(value, str):
        return [{"type": "text", "text": value}]
    if isinstance(value, list):
        return value  # pyright: ignore[reportUnknownVariableType]
    raise PydanticCustomError("content_type", "must be a string or an array of text parts")


def without(unsupported: Container[str], why: str) -> BeforeValidator:
    """For unsupported values of OpenAI's: the error says `why`, instead of listing the valid values."""

    def check(value: Any) -> Any:
        if isinstance(value, str) and value in unsupported:
            raise PydanticCustomError("unsupported", "is not supported by this server: {why}", {"why": why})
        return value

    return BeforeValidator(check)


def _finite(value: Any) -> Any:
    """Rejects NaN and infinite numbers. In a field of type Any, pydantic would accept NaN, Infinity and 1e400."""
    levels: list[Iterable[Any]] = [[value]]
    while levels:
        members = list(levels.pop())
        kinds = set(map(type, members))  # a list of a hundred thousand numbers takes no turn for each
        if float in kinds and not all(map(math.isfinite, (member for member in members if type(member) is float))):
            raise PydanticCustomError("finite_json", "must hold finite numbers")
        if dict in kinds or list in kinds:
            levels += (member.values() if type(member) is dict else member for member in members if _is_level(member))
    return value


def _is_level(value: Any) -> bool:
    return bool(value) and type(value) in (dict, list)


FINITE = AfterValidator(_finite)
"""Any JSON value whose numbers are finite."""

# OpenAI allows two forms of these fields. Both become one type, so that an error's path is the one in the request.
STRING_AS_LIST = BeforeValidator(_as_list)
STRING_AS_PARTS = BeforeValidator(_as_parts)
