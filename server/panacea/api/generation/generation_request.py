"""The fields that chat completions and text completions have in common."""

from abc import abstractmethod
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import Field, WithJsonSchema
from starlette.requests import Request

from panacea.api.catalog import Catalog
from panacea.api.connections.json_body import read_json
from panacea.api.error_responses import ApiError
from panacea.api.fields import STRING_AS_LIST, Strict, only
from panacea.api.generation.response_format import ResponseFormat
from panacea.engine.sampling_params import MAX_BIAS, MAX_BIASES, MAX_PENALTY, REPETITION_PENALTIES
from panacea.errors import RequestError

MAX_CHOICES = 16
MAX_STOPS = 4
MAX_STOP_LENGTH = 1024
MAX_STOP_TOKENS = 128
MAX_SALT_LENGTH = 256
_INT64 = 2**63

_FORM = {"stream", "stream_options", "stop", "logprobs", "echo"}
"""The fields that make the answer from the engine's tokens."""

_StopString = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]


class StreamOptions(Strict):
    """Options of a stream."""

    include_usage: bool | None = None
    """Send the numbers of tokens in a last chunk."""
    include_obfuscation: Annotated[bool | None, only(False)] = None
    """Not supported: null or false. Chunks are not padded."""


class GenerationRequest(Strict):
    """Model, preference, sampling parameters and options of the answer."""

    prompt_field: ClassVar[str]
    """Name of the field with the prompt."""
    default_max_tokens: ClassVar[int | None] = None
    """Default of max_tokens. If None, it is the rest of the context."""

    model: Annotated[
        str | None, Field(description="An id of GET /v1/models. Default: the model with its default preference.")
    ] = None
    preference: Annotated[
        Any,
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "object", "additionalProperties": {"type": "number", "minimum": 0, "maximum": 1e6}},
                    {"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 1e6}},
                    {"type": "null"},
                ],
                "description": "Relative weights by dimension (absent dimensions are 0), or a list of weights in the "
                "dimensions' order. GET /v1/preferences lists the dimensions. Default: the preset of the model id, "
                "else the adapter's default.",
            }
        ),
    ] = None

    stream: bool | None = None
    """Send the answer as server-sent events while it is generated."""
    stream_options: StreamOptions | None = None
    """Options of the stream. Needs stream: true."""
    n: Annotated[int | None, Field(ge=1, le=MAX_CHOICES)] = None
    """Number of choices per prompt. Choices with the same seed differ from each other. Default: 1."""
    max_tokens: Annotated[
        int | None, Field(ge=1, description="Maximum tokens of the answer. Default: the rest of the context.")
    ] = None
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    """Sampling temperature; 0 is greedy. Default: the model's own, else 1."""
    top_p: Annotated[float | None, Field(gt=0, le=1)] = None
    """Sample from the most likely tokens whose probability reaches this sum. Default: the model's own, else 1."""
    seed: Annotated[int | None, Field(ge=-_INT64, lt=_INT64)] = None
    """The same request with the same seed gives the same answer in any batch. Default: random."""
    stop: Annotated[
        Annotated[list[_StopString], Field(max_length=MAX_STOPS)] | None,
        STRING_AS_LIST,
        WithJsonSchema(
            {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}, {"type": "null"}]}
        ),
    ] = None
    """Up to 4 texts that end the answer. They are not part of it."""

    frequency_penalty: Annotated[
        float | None,
        Field(
            ge=-MAX_PENALTY,
            le=MAX_PENALTY,
            description="Subtracted from a token's logit for each occurrence of the token in the answer so far.",
        ),
    ] = None
    presence_penalty: Annotated[
        float | None,
        Field(
            ge=-MAX_PENALTY,
            le=MAX_PENALTY,
            description="Subtracted from a token's logit if the token occurs in the answer so far.",
        ),
    ] = None
    logit_bias: Annotated[
        dict[str, Annotated[float, Field(ge=-MAX_BIAS, le=MAX_BIAS)]] | None,
        Field(
            max_length=MAX_BIASES,
            description="Added to the logits of tokens, by token id as a string. -100 bans a token.",
            examples=[{"50": -100, "51": 2.5}],
        ),
    ] = None

    response_format: Annotated[
        ResponseFormat | None, Field(description="The required format of the answer. Default: any text.")
    ] = None

    # Extensions with vLLM's names.
    top_k: Annotated[
        int | None,
        Field(ge=-1, lt=_INT64, description="Sample from the k most likely tokens. 0 and -1 keep all tokens."),
    ] = None
    min_p: Annotated[
        float | None,
        Field(
            ge=0,
            le=1,
            description="Keep tokens whose probability is at least this fraction of the most likely token's. 0 keeps "
            "all tokens.",
        ),
    ] = None
    repetition_penalty: Annotated[
        float | None,
        Field(
            ge=REPETITION_PENALTIES[0],
            le=REPETITION_PENALTIES[1],
            description="Makes tokens that occur in the prompt or the answer less likely above 1, and more likely "
            "below 1.",
        ),
    ] = None
    min_tokens: Annotated[int | None, Field(ge=0)] = None
    """Minimum number of tokens of the answer."""
    ignore_eos: bool | None = None
    """Continue after the model's end token."""
    stop_token_ids: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=MAX_STOP_TOKENS)] | None = None
    """Tokens that end the answer. They are not part of its text."""

    cache_salt: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=MAX_SALT_LENGTH,
            description="Requests share cached prefixes only if they have the same API key and the same salt.",
        ),
    ] = None

    # A field of OpenAI's without effect on the answer.
    user: str | None = None
    """No effect."""

    def without_content(self) -> Self:
        """The request with the fields of the answer's form alone, for the time in which it waits.

        Parsed, 4 MB can take 96 MB. The other fields are in the engine's request, or have no effect.
        """
        dropped = dict.fromkeys(type(self).model_fields.keys() - _FORM)
        return self.model_copy(update={**dropped, self.prompt_field: []})

    @property
    @abstractmethod
    def alternatives(self) -> int | None:
        """Number of most likely tokens to return besides the chosen one. If None, return no log probabilities."""

    @property
    def scores_prompt(self) -> bool:
        """Whether to return log probabilities of the prompt's tokens too."""
        return False

    @property
    def limit(self) -> tuple[str, int | None]:
        """The name and the value of the field that limits the answer's tokens."""
        return "max_tokens", self.max_tokens

    @property
    def json_schema(self) -> str | None:
        """The JSON schema of the answer, as JSON. If None, any text is allowed."""
        return self.response_format.schema_text if self.response_format else None

    @property
    def includes_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def check(self) -> None:
        """Raises `RequestError` for fields that contradict each other."""
        if self.stream_options is not None and not self.stream:
            raise RequestError("stream_options needs stream: true", "stream_options")
        if self.response_format is not None:
            self.response_format.check()


GenerationBody = TypeVar("GenerationBody", bound=GenerationRequest)


async def read_generation_request(
    request: Request, model: type[GenerationBody], max_bytes: int, catalog: Catalog, token_ids: int = 0
) -> GenerationBody:
    """The request's body as `model`, checked. `token_ids` as in `read_json`. Raises `ApiError` or `RequestError`."""
    try:
        body = await read_json(request, model, max_bytes, token_ids)
    except ApiError as error:
        raise catalog.explained(error) from None
    body.check()
    return body
