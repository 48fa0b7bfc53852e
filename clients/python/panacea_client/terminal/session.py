"""The state of a conversation in the terminal."""

from dataclasses import dataclass, field

from panacea_client.information import Preferences


class InputError(Exception):
    """A command is invalid. `str(error)` says why in one line."""


@dataclass
class Session:
    """The conversation so far, and the model, system message and preference of the next answer."""

    space: Preferences
    model: str | None = None
    system: str | None = None
    weights: dict[str, float] | None = None
    """None selects the preference of the model id."""
    messages: list[dict[str, str]] = field(default_factory=list[dict[str, str]])

    def asked(self, question: str) -> list[dict[str, str]]:
        """The conversation with this question added."""
        return [*self.messages, {"role": "user", "content": question}]

    @property
    def last_question(self) -> str | None:
        return next((each["content"] for each in reversed(self.messages) if each["role"] == "user"), None)

    def before_last_question(self) -> list[dict[str, str]]:
        """The conversation up to and including the last question, without its answer."""
        last = max(index for index, message in enumerate(self.messages) if message["role"] == "user")
        return self.messages[: last + 1]

    def set_preference(self, words: list[str]) -> None:
        """Sets the preference from the words after `/set`. Raises `InputError`.

        Examples: `concise 0.8`, `helpful 2 concise 1`, `brief`, `default`.
        """
        self._need_dimensions()
        match words:
            case ["default"]:
                self.weights = None
            case [name] if name in self.space.presets:
                self.weights = dict(self.space.presets[name])
            case [name, share]:
                self._set_share(self._dimension(name), _number(share))
            case [_, _, *_] if len(words) % 2 == 0:
                weights = {
                    self._dimension(name): _number(weight) for name, weight in zip(words[::2], words[1::2], strict=True)
                }
                self.weights = normalised(dict.fromkeys(self.space.names, 0.0) | weights)
            case _:
                raise InputError(f"/set needs other words; type {self._ways_to_set}")

    def vertices(self) -> list[dict[str, float]]:
        """The preferences for each dimension alone. Raises `InputError` if there are no dimensions."""
        self._need_dimensions()
        return [{each: float(each == name) for each in self.space.names} for name in self.space.names]

    def _set_share(self, name: str, share: float) -> None:
        """Sets the share of one dimension. The others keep their proportions."""
        if share > 1:
            raise InputError(f"the share of one dimension must be between 0 and 1; type {self._ways_to_set}")
        others = {each: weight for each, weight in (self.weights or self.space.default).items() if each != name}
        if not others:
            raise InputError("there is only one dimension, so its share is always 1")
        total = sum(others.values())
        rest = {each: weight / total if total else 1 / len(others) for each, weight in others.items()}
        shares = {each: weight * (1 - share) for each, weight in rest.items()} | {name: share}
        self.weights = {each: shares[each] for each in self.space.names}

    def _dimension(self, name: str) -> str:
        if name not in self.space.names:
            raise InputError(f"unknown dimension {name!r}; the dimensions are {', '.join(self.space.names)}")
        return name

    def _need_dimensions(self) -> None:
        if not self.space.names:
            raise InputError("this server has a base model without adapter, so there is no preference to set")

    @property
    def _ways_to_set(self) -> str:
        first, last = self.space.names[0], self.space.names[-1]
        presets = ", ".join(["default", *self.space.presets])
        return f"/set {last} 0.8, or /set {first} 2 {last} 1, or /set with one of these presets: {presets}"


def normalised(weights: dict[str, float]) -> dict[str, float]:
    """`weights` with sum 1. Raises `InputError` if all are 0."""
    total = sum(weights.values())
    if total == 0:
        raise InputError("at least one weight must be above 0")
    return {name: weight / total for name, weight in weights.items()}


def _number(word: str) -> float:
    try:
        number = float(word)
    except ValueError:
        raise InputError(f"{word!r} is not a number") from None
    if not 0 <= number <= 1e6:
        raise InputError("a weight must be between 0 and 1e6")
    return number
