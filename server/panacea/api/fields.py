"""Types of request fields that pydantic has no word for."""

import math
from collections.abc import Container
from typing import Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict
from pydantic_core import PydanticCustomError


class Documented(BaseModel):
    """Base of all bodies: what stands below a field is its description in the OpenAPI document."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class Strict(Documented):
    """Base of all that clients send: an unknown field is an error, and so are NaN and Infinity."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


def only(*allowed: Any) -> AfterValidator:
    """A known field of OpenAI's that is taken only where it asks for nothing: null, or one of `allowed`."""
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
    """Says of known values of OpenAI's that they are not supported, where others are only wrong."""

    def check(value: Any) -> Any:
        if isinstance(value, str) and value in unsupported:
            raise PydanticCustomError("unsupported", "is not supported by this server: {why}", {"why": why})
        return value

    return BeforeValidator(check)


def _finite(value: Any) -> Any:
    """pydantic reads NaN, Infinity and 1e400 where any JSON may stand."""
    members: list[Any] = [value]
    while members:
        match members.pop():
            case dict() as content:
                members += content.values()  # pyright: ignore[reportUnknownArgumentType]
            case list() as content:
                members += content  # pyright: ignore[reportUnknownArgumentType]
            case float() as number if not math.isfinite(number):
                raise PydanticCustomError("finite_json", "must hold finite numbers")
            case _:
                pass
    return value


FINITE = AfterValidator(_finite)
"""Any JSON, but no number that JSON cannot write."""

# One shape behind each of OpenAI's alternatives, so that an error's path is the client's own.
STRING_AS_LIST = BeforeValidator(_as_list)
STRING_AS_PARTS = BeforeValidator(_as_parts)
