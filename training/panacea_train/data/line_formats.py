"""The formats of a line in a training file; docs/training.md shows each one."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat

from panacea.text.chat_template import ChatMessage, ChatRole
from panacea_train.data.training_records import Compared, Record, Scored, Shown


class _Strict(BaseModel):
    """Strict types, and unknown fields are errors. `id` and `metadata` are allowed everywhere."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    id: Any = None
    metadata: Any = None


def _some_text(text: str) -> str:
    if not text.strip():
        raise ValueError("is blank")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("has half of a character (a lone surrogate)")
    return text


_Text = Annotated[str, AfterValidator(_some_text)]


class _Message(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    role: ChatRole
    content: _Text


def _as_messages(value: object) -> object:
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


def _ends_with_user(messages: list[_Message]) -> list[_Message]:
    if messages[-1].role != "user":
        raise ValueError("the last message must be the user's")
    return messages


_Conversation = Annotated[list[_Message], Field(min_length=1), AfterValidator(_ends_with_user)]
_Prompt = Annotated[list[_Message], BeforeValidator(_as_messages), Field(min_length=1), AfterValidator(_ends_with_user)]


def _as_text(value: object) -> object:
    """The text of an answer that is written as a conversation of one message, as in TRL's data sets."""
    match value:
        case [{"role": "assistant", "content": content}]:
            return content
        case _:
            return value


_Answer = Annotated[str, BeforeValidator(_as_text), AfterValidator(_some_text)]


def _as_probability(value: object) -> object:
    """The probability that the first answer is better."""
    return {"a": 1.0, "b": 0.0, "tie": 0.5}.get(value, value) if isinstance(value, str) else value


_Better = Annotated[FiniteFloat, BeforeValidator(_as_probability), Field(ge=0, le=1)]


class _ScoredAnswer(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    text: _Answer
    scores: Annotated[dict[str, FiniteFloat], Field(min_length=1)]


class ScoredLine(_Strict):
    """Several answers and their scores."""

    prompt: _Prompt
    answers: Annotated[list[_ScoredAnswer], Field(min_length=1)]

    def record(self) -> Record:
        return Scored(_messages(self.prompt), [a.text for a in self.answers], [a.scores for a in self.answers])


class PairLine(_Strict):
    """Two answers, and the better one for each dimension: "a", "b", "tie" or the probability of a."""

    prompt: _Prompt
    a: _Answer
    b: _Answer
    better: Annotated[dict[str, _Better], Field(min_length=1)]

    def record(self) -> Record:
        return Compared(_messages(self.prompt), (self.a, self.b), self.better)


class ChosenLine(_Strict):
    """A pair in the format of preference data sets, with the one dimension of its label."""

    prompt: _Prompt
    chosen: _Answer
    rejected: _Answer
    dimension: _Text

    def record(self) -> Record:
        return Compared(_messages(self.prompt), (self.chosen, self.rejected), {self.dimension: 1.0})


class SafeRLHFLine(BaseModel):
    """A pair with the columns of PKU-SafeRLHF and of BeaverTails' comparisons. Further columns are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    prompt: _Prompt
    response_0: _Answer
    response_1: _Answer
    better_response_id: Literal[0, 1]
    safer_response_id: Literal[0, 1]

    def record(self) -> Record:
        better = {"helpful": 1.0 - self.better_response_id, "harmless": 1.0 - self.safer_response_id}
        return Compared(_messages(self.prompt), (self.response_0, self.response_1), better)


class ShownLine(_Strict):
    """One answer to imitate, under the given preference or under all."""

    prompt: _Prompt
    answer: _Answer
    preference: Annotated[dict[str, Annotated[FiniteFloat, Field(ge=0)]], Field(min_length=1)] | None = None

    def record(self) -> Record:
        return Shown(_messages(self.prompt), self.answer, self.preference)


class PromptLine(BaseModel):
    """A prompt of an evaluation. Other fields of the line are for reward functions."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    prompt: _Prompt | None = None
    messages: _Conversation | None = None
    """Another name for a prompt that is a conversation."""

    def conversation(self) -> list[ChatMessage]:
        """Raises `ValueError` unless there is exactly one."""
        match self.prompt, self.messages:
            case None, None:
                raise ValueError("has neither prompt nor messages: add one of them")
            case list(prompt), None:
                return _messages(prompt)
            case None, list(messages):
                return _messages(messages)
            case _:
                raise ValueError("has both prompt and messages: remove one of them")


DataLine = ScoredLine | PairLine | ChosenLine | SafeRLHFLine | ShownLine

_TELLING_FIELDS: Mapping[str, type[DataLine]] = {
    "answers": ScoredLine,
    "better": PairLine,
    "chosen": ChosenLine,
    "rejected": ChosenLine,
    "better_response_id": SafeRLHFLine,
    "safer_response_id": SafeRLHFLine,
    "answer": ShownLine,
}


def format_of(line: Mapping[str, Any]) -> type[DataLine]:
    """The format of a line, from its fields. Raises `ValueError` if no field determines it."""
    for field, format_ in _TELLING_FIELDS.items():
        if field in line:
            return format_
    raise ValueError(f"needs one of the fields {', '.join(_TELLING_FIELDS)}, which determine the line's format")


def _messages(prompt: list[_Message]) -> list[ChatMessage]:
    return [ChatMessage(message.role, message.content) for message in prompt]
