"""What the text workers do: one frozen message per kind of job, performed in a worker, awaited in the server.

Token ids travel as four bytes each.
"""

import json
from abc import abstractmethod
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import msgspec

from panacea.engine import grammar_check
from panacea.engine.grammar import FIELD
from panacea.errors import RequestError
from panacea.text.chat_template import ChatMessage
from panacea.text.model_text import ModelText
from panacea.text.prompt_tokens import PromptTokens

Result = TypeVar("Result")

_LONG = 20_000
"""Characters of a text from which its job counts as long: 20 ms of work."""
_CHARS_PER_TOKEN = 10
"""Finding the place of one token in its prompt's text takes as long as encoding this many characters."""

_LEAST_CPU_S = 2.0
_CPU_S_PER_CHAR = 5e-6
"""Encoding takes 1 us a character, and a simple template less."""


class TextJob(msgspec.Struct, Generic[Result], frozen=True):
    """A job for a worker."""

    param: ClassVar[str]
    """The request's field at fault if the job exceeds its limits."""
    too_much: ClassVar[str]
    """The error's message in that case."""

    @property
    @abstractmethod
    def chars(self) -> int:
        """The job's work, as the number of characters whose encoding takes as long."""

    @property
    def is_long(self) -> bool:
        """Whether the job may take more than 20 ms. One worker is kept free of such jobs."""
        return self.chars > _LONG

    @property
    def cpu_limit_s(self) -> float:
        """CPU seconds after which the worker is killed."""
        return _LEAST_CPU_S + _CPU_S_PER_CHAR * self.chars

    @abstractmethod
    def perform(self, text: ModelText) -> bytes:
        """The encoded result. Raises `RequestError` if the model's text does not allow it."""

    @abstractmethod
    def read(self, result: bytes) -> Result:
        """The result from its encoded form."""


class EncodeConversation(TextJob[list[int]], frozen=True, tag=True):
    """The token ids of a conversation."""

    param: ClassVar[str] = "messages"
    too_much: ClassVar[str] = (
        "messages: the model's chat template exceeds its limits on time or memory for this conversation; shorten it"
    )

    messages: list[ChatMessage]
    variables: str | None
    """Variables of the template, as JSON."""
    max_chars: int
    """Most characters of the rendered text: more cannot fit into the context."""

    @property
    def chars(self) -> int:
        return _chars(self.messages)

    def perform(self, text: ModelText) -> bytes:
        return packed(_conversation(text, self.messages, self.variables, self.max_chars))

    def read(self, result: bytes) -> list[int]:
        return unpacked(result)


class EncodeTexts(TextJob[list[list[int]]], frozen=True, tag=True):
    """The token ids of raw prompts, with the tokenizer's own special tokens."""

    param: ClassVar[str] = "prompt"
    too_much: ClassVar[str] = "prompt: the text takes too much time or memory to tokenize; shorten it"

    texts: list[str]

    @property
    def chars(self) -> int:
        return sum(map(len, self.texts))

    def perform(self, text: ModelText) -> bytes:
        return msgspec.msgpack.encode([packed(ids) for ids in text.encode(self.texts)])

    def read(self, result: bytes) -> list[list[int]]:
        return [unpacked(ids) for ids in msgspec.msgpack.decode(result, type=list[bytes])]


class EchoedPrompt(msgspec.Struct, frozen=True):
    """A prompt as an answer repeats it: its text, and its tokens if they are scored."""

    text: str
    tokens: PromptTokens | None


class EchoPrompts(TextJob[list[EchoedPrompt]], frozen=True, tag=True):
    """What answers with `echo` show of their prompts."""

    param: ClassVar[str] = "prompt"
    too_much: ClassVar[str] = "prompt: the tokens take too much time or memory to echo; shorten the prompt"

    prompts: list[tuple[str | None, bytes]]
    """Each prompt's text, or None if it was given as token ids, and its token ids."""
    scored: bool

    @property
    def chars(self) -> int:
        return _CHARS_PER_TOKEN * sum(len(ids) // 4 for _, ids in self.prompts)

    def perform(self, text: ModelText) -> bytes:
        return msgspec.msgpack.encode([self._echoed(text, given, unpacked(ids)) for given, ids in self.prompts])

    def _echoed(self, text: ModelText, given: str | None, ids: list[int]) -> EchoedPrompt:
        shown = text.decode(ids) if given is None else given
        return EchoedPrompt(shown, PromptTokens.of(text, ids, shown) if self.scored else None)

    def read(self, result: bytes) -> list[EchoedPrompt]:
        return msgspec.msgpack.decode(result, type=list[EchoedPrompt])


class Tokenize(TextJob[bytes], frozen=True, tag=True):
    """The answer of `/v1/tokenize` as JSON. A text and a conversation exclude each other."""

    param: ClassVar[str] = "prompt"
    too_much: ClassVar[str] = "the text takes too much time or memory to tokenize; shorten it"

    prompt: str | None
    messages: list[ChatMessage]
    variables: str | None
    add_generation_prompt: bool
    add_special_tokens: bool
    strings: bool
    """Whether to include each token as the vocabulary spells it."""
    max_chars: int
    max_model_len: int

    @property
    def chars(self) -> int:
        return len(self.prompt or "") + _chars(self.messages)

    def perform(self, text: ModelText) -> bytes:
        if self.prompt is not None:
            (ids,) = text.encode([self.prompt], add_special_tokens=self.add_special_tokens)
        else:
            ids = _conversation(
                text,
                self.messages,
                self.variables,
                self.max_chars,
                add_generation_prompt=self.add_generation_prompt,
                add_special_tokens=self.add_special_tokens,
            )
        strings = text.token_strings(ids) if self.strings else None
        return msgspec.json.encode(
            {"count": len(ids), "max_model_len": self.max_model_len, "tokens": ids, "token_strs": strings}
        )

    def read(self, result: bytes) -> bytes:
        return result


class Detokenize(TextJob[bytes], frozen=True, tag=True):
    """The answer of `/v1/detokenize` as JSON."""

    param: ClassVar[str] = "tokens"
    too_much: ClassVar[str] = "tokens: they take too much time or memory to convert; send fewer"

    ids: bytes

    @property
    def chars(self) -> int:
        return len(self.ids) // 4

    def perform(self, text: ModelText) -> bytes:
        return msgspec.json.encode({"prompt": text.decode(unpacked(self.ids))})

    def read(self, result: bytes) -> bytes:
        return result


class CheckSchema(TextJob[None], frozen=True, tag=True):
    """Whether answers can follow a JSON schema."""

    param: ClassVar[str] = FIELD
    too_much: ClassVar[str] = f"{FIELD}: the JSON schema takes too much time or memory to enforce; simplify it"

    schema: str

    @property
    def chars(self) -> int:
        return 0

    @property
    def is_long(self) -> bool:
        return True  # a usual schema takes a few ms, and nobody can tell which takes hours

    def perform(self, text: ModelText) -> bytes:
        del text  # schemas are tried with a vocabulary of bytes
        if error := grammar_check.error_of(self.schema):
            raise RequestError(error, FIELD)
        return b""

    def read(self, result: bytes) -> None:
        del result


AnyJob = EncodeConversation | EncodeTexts | EchoPrompts | Tokenize | Detokenize | CheckSchema


class JobDone(msgspec.Struct, frozen=True, tag=True):
    """A job's encoded result."""

    result: bytes


class JobRefused(msgspec.Struct, frozen=True, tag=True):
    """A `RequestError`."""

    message: str
    param: str | None


class JobTooLong(msgspec.Struct, frozen=True, tag=True):
    """A `PromptTooLongError`."""

    max_chars: int
    param: str


class JobFailed(msgspec.Struct, frozen=True, tag=True):
    """The job raised an unexpected exception. The worker may be damaged, and is replaced."""

    error: str
    """The exception's type. Its text could repeat what a client sent."""


JobReply = JobDone | JobRefused | JobTooLong | JobFailed


def packed(ids: Sequence[int]) -> bytes:
    """Token ids as four bytes each."""
    return array("I", ids).tobytes()


def unpacked(data: bytes) -> list[int]:
    """The token ids in `data`."""
    return array("I", data).tolist()


def template_json(variables: Mapping[str, Any] | None) -> str | None:
    """A template's variables as jobs carry them. MessagePack has no integers above 64 bits; JSON has."""
    return None if variables is None else json.dumps(variables)


def _conversation(
    text: ModelText, messages: Sequence[ChatMessage], variables: str | None, max_chars: int, **options: bool
) -> list[int]:
    given = None if variables is None else json.loads(variables)
    return text.prompt_ids(messages, given, max_chars=max_chars, **options)


def _chars(messages: Sequence[ChatMessage]) -> int:
    return sum(len(message.content) for message in messages)
