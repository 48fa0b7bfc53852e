"""What every request for generated text may say, whatever its prompt looks like."""

from abc import abstractmethod
from typing import Annotated, Any, ClassVar, TypeVar

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

_StopString = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]


class StreamOptions(Strict):
    """What a stream carries besides the answer."""

    include_usage: bool | None = None
    """Send the number of tokens in a last chunk."""
    include_obfuscation: Annotated[bool | None, only(False)] = None
    """null or false: chunks are not padded."""


class GenerationRequest(Strict):
    """Which model, which preference, and how its tokens are chosen and sent."""

    prompt_field: ClassVar[str]
    """Name of the field that holds the prompt."""
    default_max_tokens: ClassVar[int | None] = None
    """None: what the context leaves."""

    model: Annotated[str | None, Field(description="One of GET /v1/models; absent: the model itself.")] = None
    preference: Annotated[
        Any,
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "object", "additionalProperties": {"type": "number", "minimum": 0, "maximum": 1e6}},
                    {"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 1e6}},
                    {"type": "null"},
                ],
                "description": "Relative weights by dimension (absent ones are 0), or in the dimensions' order; "
                "see GET /v1/preferences. Absent: the model id's preset, else the default.",
            }
        ),
    ] = None

    stream: bool | None = None
    """Send the answer as it is generated, as server-sent events."""
    stream_options: StreamOptions | None = None
    """With stream: true, and only then."""
    n: Annotated[int | None, Field(ge=1, le=MAX_CHOICES)] = None
    """How many answers; those of one seed differ."""
    max_tokens: Annotated[int | None, Field(ge=1, description="Absent: what the context leaves.")] = None
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    """0 is greedy. Absent: the model's own default, else 1."""
    top_p: Annotated[float | None, Field(gt=0, le=1)] = None
    """Keep the most likely tokens until their probability reaches this. Absent: the model's default, else 1."""
    seed: Annotated[int | None, Field(ge=-_INT64, lt=_INT64)] = None
    """Equal seeds give equal answers, alone and in any batch. Absent: a new one each time."""
    stop: Annotated[
        Annotated[list[_StopString], Field(max_length=MAX_STOPS)] | None,
        STRING_AS_LIST,
        WithJsonSchema(
            {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}, {"type": "null"}]}
        ),
    ] = None
    """Texts that end the answer and are none of it, up to 4."""

    frequency_penalty: Annotated[
        float | None,
        Field(
            ge=-MAX_PENALTY,
            le=MAX_PENALTY,
            description="Taken from a token's logit for each time that the answer has it already.",
        ),
    ] = None
    presence_penalty: Annotated[
        float | None,
        Field(ge=-MAX_PENALTY, le=MAX_PENALTY, description="Taken from a token's logit if the answer has it already."),
    ] = None
    logit_bias: Annotated[
        dict[str, Annotated[float, Field(ge=-MAX_BIAS, le=MAX_BIAS)]] | None,
        Field(
            max_length=MAX_BIASES,
            description="By token id, written as a string: what is added to the token's logit. -100 bans it.",
            examples=[{"50": -100, "51": 2.5}],
        ),
    ] = None

    response_format: Annotated[
        ResponseFormat | None, Field(description="What the answer has to look like. Absent: any text.")
    ] = None

    # Extensions, as vLLM names them.
    top_k: Annotated[int | None, Field(ge=-1, lt=_INT64, description="0 and -1 keep all tokens.")] = None
    min_p: Annotated[
        float | None,
        Field(ge=0, le=1, description="Keep tokens at least this share as likely as the most likely one; 0 keeps all."),
    ] = None
    repetition_penalty: Annotated[
        float | None,
        Field(
            ge=REPETITION_PENALTIES[0],
            le=REPETITION_PENALTIES[1],
            description="Makes tokens of prompt and answer less likely where above 1, and more where below.",
        ),
    ] = None
    min_tokens: Annotated[int | None, Field(ge=0)] = None
    """No end before so many tokens."""
    ignore_eos: bool | None = None
    """Go on where the model would end."""
    stop_token_ids: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=MAX_STOP_TOKENS)] | None = None
    """Tokens that end the answer and are none of its text."""

    cache_salt: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=MAX_SALT_LENGTH,
            description="Cached prompts are shared among requests of the same API key and the same salt only.",
        ),
    ] = None

    # OpenAI's field that changes no token, whatever it says.
    user: str | None = None
    """Changes nothing."""

    @property
    @abstractmethod
    def alternatives(self) -> int | None:
        """Most likely tokens to report at each position, beside the chosen one's log probability; None: neither."""

    @property
    def scores_prompt(self) -> bool:
        """Whether the prompt's own tokens get log probabilities too."""
        return False

    @property
    def limit(self) -> tuple[str, int | None]:
        """The field that limits the answer's tokens, and what it says."""
        return "max_tokens", self.max_tokens

    @property
    def json_schema(self) -> str | None:
        """What the answer has to follow, as JSON; None: nothing."""
        return self.response_format.schema_text if self.response_format else None

    @property
    def includes_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def check(self) -> None:
        """Raises `RequestError` for fields that do not fit together."""
        if self.stream_options is not None and not self.stream:
            raise RequestError("stream_options needs stream: true", "stream_options")
        if self.response_format is not None:
            self.response_format.check()


Wanted = TypeVar("Wanted", bound=GenerationRequest)


async def read_generation_request(request: Request, model: type[Wanted], max_bytes: int, catalog: Catalog) -> Wanted:
    """The request's body as `model`, with fields that fit together. Raises `ApiError` or `RequestError`."""
    try:
        wanted = await read_json(request, model, max_bytes)
    except ApiError as error:
        raise catalog.explained(error) from None
    wanted.check()
    return wanted
