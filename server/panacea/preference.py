"""Preferences and the preference space. Plain Python, without torch and HTTP."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from panacea.errors import PreferenceError

MAX_WEIGHT = 1e6
"""Maximum weight in a request. Weights are relative, so larger ones are never needed, and their sum stays finite."""

_ROUNDING = 1e-15
"""A sum within this distance of 1 counts as 1. Quotients are rounded, so the sum of normalised weights may be off by
2.3e-16. If a client sends back a preference that an answer reported, another division would change it, and the changed
preference would not share its prefix cache."""

BASE_NAME = "base"
"""The model id `<name>:base` is the bare base model, so a preset cannot have this name."""

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

Preference = tuple[float, ...]
"""One weight per dimension, in the space's order. Weights are not negative and sum to 1. Without dimensions: ()."""


@dataclass(frozen=True)
class Dimension:
    """A property that answers are steered towards, such as `concise`."""

    name: str
    description: str = ""


@dataclass(frozen=True)
class PreferenceSpace:
    """The dimensions that an adapter was trained for, its default preference and its presets.

    The constructor raises `PreferenceError` for invalid names or weights.
    """

    dimensions: tuple[Dimension, ...]
    default: Preference
    presets: Mapping[str, Preference] = field(default_factory=dict[str, Preference])
    example_prompts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for kind, names in (("dimension", self.names), ("preset", tuple(self.presets))):
            for name in names:
                if not NAME_PATTERN.fullmatch(name):
                    raise PreferenceError(
                        f"{kind} name {name[:64]!r}: use up to 64 letters, digits, '_', '.' and '-', and begin with a "
                        "letter or digit"
                    )
        if len(set(self.names)) != len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise PreferenceError(f"dimension name {twice!r} occurs twice")
        if BASE_NAME in self.presets:
            raise PreferenceError(f"a preset cannot be called {BASE_NAME!r}: that name selects the bare base model")
        object.__setattr__(self, "default", self.resolve(self.default))
        object.__setattr__(self, "presets", {name: self.resolve(weights) for name, weights in self.presets.items()})

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dimension.name for dimension in self.dimensions)

    def resolve(self, weights: object) -> Preference:
        """The normalised preference of a client's `weights`.

        `weights` is a mapping from dimension name to weight (absent dimensions are 0) or a sequence with one weight per
        dimension. Weights are relative: `{"helpful": 2, "concise": 1}` is two thirds and one third.

        Raises `PreferenceError` unless every weight is a finite number between 0 and 1e6 and at least one is above 0.
        The message lists the dimensions and never repeats a value.
        """
        if isinstance(weights, Mapping):
            return self._normalise(self._ordered(weights))  # pyright: ignore[reportUnknownArgumentType]
        if isinstance(weights, Sequence) and not isinstance(weights, str | bytes):
            values: Sequence[object] = weights  # pyright: ignore[reportUnknownVariableType]
            if len(values) != len(self.dimensions):
                raise PreferenceError(
                    f"preference has {len(values)} weights instead of {len(self.dimensions)} ({self.listed})"
                )
            return self._normalise(values)
        raise PreferenceError(f"preference must be an object or an array of weights ({self.listed})")

    def as_dict(self, preference: Preference) -> dict[str, float]:
        """`preference` as {dimension: weight}, the form of the API's answers."""
        return dict(zip(self.names, preference, strict=True))

    @property
    def listed(self) -> str:
        """The dimensions in words, for error messages."""
        return "dimensions: " + ", ".join(self.names) if self.names else "this adapter has no dimensions"

    def _ordered(self, weights: Mapping[object, object]) -> Sequence[object]:
        names = self.names
        unknown = next((name for name in weights if name not in names), None)
        if unknown is not None:
            shown = ascii(unknown)[:64]
            raise PreferenceError(f"preference names an unknown dimension {shown} ({self.listed})")
        return [weights.get(name, 0.0) for name in names]

    def _normalise(self, weights: Sequence[object]) -> Preference:
        numbers: list[float] = []
        for name, weight in zip(self.names, weights, strict=True):
            if isinstance(weight, bool) or not isinstance(weight, int | float):
                raise PreferenceError(f"preference.{name} is not a number ({self.listed})")
            # A comparison with NaN is false, so this test rejects NaN too.
            if not 0 <= weight <= MAX_WEIGHT:
                raise PreferenceError(f"preference.{name} must be between 0 and 1e6 ({self.listed})")
            # Adding 0.0 turns -0.0 into 0.0, so that equal preferences have equal bytes.
            numbers.append(float(weight) + 0.0)
        if not numbers:
            return ()
        total = math.fsum(numbers)
        if total == 0:
            raise PreferenceError(f"preference has no weight above 0 ({self.listed})")
        if abs(total - 1) <= _ROUNDING:
            return tuple(numbers)
        return tuple(number / total for number in numbers)
