"""Body of `POST /v1/completions`."""

from typing import Annotated, Any, ClassVar

from pydantic import FailFast, Field, PlainValidator, TypeAdapter, WithJsonSchema
from pydantic_core import PydanticCustomError

from panacea.api.fields import only
from panacea.api.generation.generation_request import GenerationRequest
from panacea.errors import RequestError

DEFAULT_MAX_TOKENS = 16
"""OpenAI's default."""

MAX_PROMPTS = 128
MAX_CHOICES_TOGETHER = 128
MAX_LOGPROBS = 5
"""OpenAI's limit for text completions. Chat completions have another one."""

_TokenIds = Annotated[list[Annotated[int, Field(ge=0)]], FailFast()]  # describing an error takes 0.5 us
_AtLeastOne = Field(min_length=1)
_Several = Field(min_length=1, max_length=MAX_PROMPTS)

_STRINGS = TypeAdapter[list[str]](Annotated[list[str], FailFast(), _Several])
_TOKEN_IDS = TypeAdapter[list[int]](Annotated[_TokenIds, _AtLeastOne])
_LISTS_OF_TOKEN_IDS = TypeAdapter[list[list[int]]](
    Annotated[list[Annotated[_TokenIds, _AtLeastOne]], FailFast(), _Several]
)


def _as_prompts(value: Any) -> list[str] | list[list[int]]:
    # The first element decides, because a union's error would list every alternative for every element.
    match value:
        case str():
            return [value]
        case [] | [str(), *_]:
            return _STRINGS.validate_python(value, strict=True)
        case [int(), *_]:
            return [_TOKEN_IDS.validate_python(value, strict=True)]
        case [list(), *_]:
            return _LISTS_OF_TOKEN_IDS.validate_python(value, strict=True)
        case _:
            raise PydanticCustomError(
                "prompt_type",
                "must be a string, an array of strings, an array of token ids or an array of such arrays",
            )


class CompletionRequest(GenerationRequest):
    """A text to continue, with a preference and sampling parameters."""

    prompt_field: ClassVar[str] = "prompt"
    default_max_tokens: ClassVar[int | None] = DEFAULT_MAX_TOKENS

    prompt: Annotated[
        list[str] | list[list[int]],
        PlainValidator(_as_prompts),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "string"},
                    {"type": "array", "items": {"type": "string"}},
                    {"type": "array", "items": {"type": "integer", "minimum": 0}},
                    {"type": "array", "items": {"type": "array", "items": {"type": "integer", "minimum": 0}}},
                ],
                "description": "A text or its token ids, or a list of either. Each prompt gets n choices. The "
                "tokenizer adds its special tokens to a text, such as a begin-of-text token. Token ids are used "
                "unchanged.",
            }
        ),
    ]
    max_tokens: Annotated[
        Annotated[int, Field(ge=0)] | None,
        Field(
            description=f"Default: {DEFAULT_MAX_TOKENS}, limited by the context length. With echo and logprobs, 0 "
            "scores the prompt and generates nothing."
        ),
    ] = None
    echo: Annotated[
        bool | None,
        Field(description="Start each choice with its prompt. With logprobs, also return the prompt's."),
    ] = None
    logprobs: Annotated[
        int | None,
        Field(
            ge=0,
            le=MAX_LOGPROBS,
            description="Return log probabilities, with this number of most likely tokens at each position besides the "
            "chosen one.",
        ),
    ] = None

    # Fields of OpenAI's without support here. They are accepted at values that have no effect.
    best_of: Annotated[int | None, Field(ge=1, description="Not supported: null or the value of n.")] = None
    suffix: Annotated[str | None, only("")] = None
    """Not supported: null or an empty string."""

    @property
    def alternatives(self) -> int | None:
        return self.logprobs

    @property
    def scores_prompt(self) -> bool:
        return bool(self.echo) and self.logprobs is not None

    def check(self) -> None:
        super().check()
        if self.best_of not in (None, self.n or 1):
            raise RequestError("best_of other than n is not supported by this server; leave it out", "best_of")
        if self.max_tokens == 0 and not self.scores_prompt:
            raise RequestError("max_tokens 0 only scores the prompt, so it needs echo and logprobs", "max_tokens")
        if len(self.prompt) * (self.n or 1) > MAX_CHOICES_TOGETHER:
            raise RequestError(f"n times the number of prompts must be at most {MAX_CHOICES_TOGETHER}", "n")
