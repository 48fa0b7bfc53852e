"""Text that knows the origin of each of its characters, through all that a template does with it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from typing import Any, Literal, SupportsIndex

from jinja2 import Environment, Undefined
from jinja2.nodes import EvalContext
from jinja2.runtime import Context

Origin = Literal[0, 1, 2]
MIXED: Origin = 0
"""Computed from the template's text and a message's, such that they can no longer be told apart."""
TEMPLATE: Origin = 1
"""Written by the template, or computed from the template's own text."""
MESSAGE: Origin = 2
"""Written by the client, or computed from the client's text."""


def plain(text: str) -> str:
    """The same text without origins."""
    return str.__str__(text)


def origins_of(text: str) -> bytes:
    """One origin per character. They are `MIXED` for a text that is not traced."""
    return text._origins if isinstance(text, TracedText) else bytes(len(text))  # pyright: ignore[reportPrivateUsage]


def traced(value: object, origin: Origin) -> Any:
    """A JSON value whose texts, and names of members, all have this origin."""
    if isinstance(value, str):
        return TracedText(value, origin)
    if isinstance(value, Mapping):
        return {traced(name, origin): traced(member, origin) for name, member in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list | tuple):
        return [traced(member, origin) for member in value]  # pyright: ignore[reportUnknownVariableType]
    return value


def computed(text: str, *inputs: object) -> "TracedText":
    """`text` with the common origin of the inputs that it was computed from, which may hold texts at any depth."""
    common: set[int] = set()
    for value in inputs:
        common.update(_origins(value))
    if len(common) > 1:
        return TracedText(text, MIXED)
    # Without any input of text it is a number or a constant of the template's.
    return TracedText(text, common.pop() if common else TEMPLATE)  # type: ignore[arg-type]


def _origins(value: object) -> set[int]:
    match value:
        case str():
            origins = origins_of(value)
            return {origin for origin in (MIXED, TEMPLATE, MESSAGE) if origin in origins}
        case None | bool() | int() | float() | Environment() | EvalContext() | Context() | Undefined():
            return set()
        case Mapping():
            return set().union(*map(_origins, value), *map(_origins, value.values()))  # pyright: ignore
        case list() | tuple():
            return set().union(*map(_origins, value))  # pyright: ignore
        case _:
            return {MIXED}


def _computing(method: Callable[..., str]) -> Any:
    @wraps(method)
    def call(self: "TracedText", *args: object, **kwargs: object) -> "TracedText":
        return computed(method(self, *args, **kwargs), self, args, kwargs)

    return call


class TracedText(str):
    """A `str` with one origin per character.

    It equals and hashes as the same plain text. All methods return what those of `str` return, as traced text: a part
    of a text keeps its origins, and a text computed in any other way has the common origin of its inputs.
    """

    __slots__ = ("_origins",)
    # The sandbox hides names with an underscore from the template.
    _origins: bytes

    def __new__(cls, text: object = "", origins: bytes | Origin = MIXED) -> "TracedText":
        """`origins` are those of each character, or one for all."""
        traced = super().__new__(cls, text)
        traced._origins = origins if isinstance(origins, bytes) else bytes((origins,)) * len(traced)
        return traced

    def __str__(self) -> str:
        return self

    def _part(self, start: int, end: int) -> "TracedText":
        return TracedText(super().__getitem__(slice(start, end)), self._origins[start:end])

    def __getitem__(self, key: SupportsIndex | slice) -> "TracedText":
        text = super().__getitem__(key)
        if isinstance(key, slice):
            return TracedText(text, self._origins[key])
        return TracedText(text, self._origins[key : key.__index__() + 1 or None])

    def __iter__(self) -> "Iterator[TracedText]":
        for index, char in enumerate(super().__iter__()):
            yield TracedText(char, self._origins[index : index + 1])

    def __add__(self, other: str) -> "TracedText":
        # Markup escapes what it is added to.
        if not isinstance(other, str) or hasattr(other, "__html__"):
            return NotImplemented
        return TracedText(super().__add__(other), self._origins + origins_of(other))

    def __radd__(self, other: str) -> "TracedText":
        if not isinstance(other, str):
            return NotImplemented
        return TracedText(other + plain(self), origins_of(other) + self._origins)

    def __mul__(self, times: SupportsIndex) -> "TracedText":
        return TracedText(super().__mul__(times), self._origins * times)

    def __rmul__(self, times: SupportsIndex) -> "TracedText":
        return self * times

    def __mod__(self, values: Any) -> "TracedText":
        return computed(super().__mod__(values), self, values)

    def __format__(self, spec: str) -> str:
        return computed(super().__format__(spec), self) if spec else self

    def join(self, texts: Iterable[str]) -> "TracedText":
        parts = list(texts)
        return TracedText(super().join(parts), self._origins.join(map(origins_of, parts)))

    def strip(self, chars: str | None = None) -> "TracedText":
        return self.lstrip(chars).rstrip(chars)

    def lstrip(self, chars: str | None = None) -> "TracedText":
        return self._part(len(self) - len(super().lstrip(chars)), len(self))

    def rstrip(self, chars: str | None = None) -> "TracedText":
        return self._part(0, len(super().rstrip(chars)))

    def removeprefix(self, prefix: str) -> "TracedText":
        return self._part(len(self) - len(super().removeprefix(prefix)), len(self))

    def removesuffix(self, suffix: str) -> "TracedText":
        return self._part(0, len(super().removesuffix(suffix)))

    def _parts(self, texts: Iterable[str], gap: int) -> "list[TracedText]":
        parts: list[TracedText] = []
        start = 0
        for text in texts:
            parts.append(self._part(start, start + len(text)))
            start += len(text) + gap
        return parts

    def _words(self, words: Iterable[str]) -> "list[TracedText]":
        parts: list[TracedText] = []
        end = 0
        for word in words:
            start = self.find(word, end)
            end = start + len(word)
            parts.append(self._part(start, end))
        return parts

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> "list[TracedText]":  # type: ignore[override]
        texts = super().split(sep, maxsplit)
        return self._words(texts) if sep is None else self._parts(texts, len(sep))

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> "list[TracedText]":  # type: ignore[override]
        texts = super().rsplit(sep, maxsplit)
        return self._words(texts) if sep is None else self._parts(texts, len(sep))

    def splitlines(self, keepends: bool = False) -> "list[TracedText]":  # type: ignore[override]
        whole = self._parts(super().splitlines(keepends=True), 0)
        if keepends:
            return whole
        return [line._part(0, len(text)) for line, text in zip(whole, super().splitlines(), strict=True)]

    def partition(self, sep: str) -> "tuple[TracedText, TracedText, TracedText]":
        before, found, after = self._parts(super().partition(sep), 0)
        return before, found, after

    def rpartition(self, sep: str) -> "tuple[TracedText, TracedText, TracedText]":
        before, found, after = self._parts(super().rpartition(sep), 0)
        return before, found, after

    def replace(self, old: str, new: str, count: SupportsIndex = -1) -> "TracedText":
        if not old:
            return computed(super().replace(old, new, count), self, new)
        return TracedText(new, origins_of(new)).join(self.split(old, count))

    def _mapped(self, text: str) -> "TracedText":
        # No character becomes shorter, so of equal length means character by character.
        return TracedText(text, self._origins) if len(text) == len(self) else computed(text, self)

    def lower(self) -> "TracedText":
        return self._mapped(super().lower())

    def upper(self) -> "TracedText":
        return self._mapped(super().upper())

    def casefold(self) -> "TracedText":
        return self._mapped(super().casefold())

    def capitalize(self) -> "TracedText":
        return self._mapped(super().capitalize())

    def title(self) -> "TracedText":
        return self._mapped(super().title())

    def swapcase(self) -> "TracedText":
        return self._mapped(super().swapcase())

    translate = _computing(str.translate)
    expandtabs = _computing(str.expandtabs)
    center = _computing(str.center)
    ljust = _computing(str.ljust)
    rjust = _computing(str.rjust)
    zfill = _computing(str.zfill)
    # `format` and `format_map` are not here: the sandbox replaces both.
