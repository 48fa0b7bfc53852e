"""Body of `POST /v1/chat/completions`."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from panacea.api.fields import STRING_AS_LIST, STRING_AS_PARTS, only
from panacea.engine.sampling_params import MAX_LOGPROBS
from panacea.text import ChatMessage

MAX_MESSAGES = 2048
MAX_PARTS = 1024
MAX_CHOICES = 16
MAX_STOPS = 4
MAX_STOP_LENGTH = 1024
MAX_STOP_TOKENS = 128
_INT64 = 2**63

_StopString = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class TextPart(_Strict):
    """A piece of a message. Other kinds than text are not supported."""

    type: Literal["text"]
    text: str


class Message(_Strict):
    """One turn of the conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        list[TextPart],
        STRING_AS_PARTS,
        Field(max_length=MAX_PARTS),
        WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": TextPart.model_json_schema()}]}),
    ]
    # An assistant's message may be sent back as the openai client holds it.
    name: Annotated[str | None, only()] = None
    refusal: Annotated[str | None, only()] = None
    audio: Annotated[Any, only()] = None
    function_call: Annotated[Any, only()] = None
    tool_calls: Annotated[Any, only([])] = None
    annotations: Annotated[Any, only([])] = None

    def as_chat_message(self) -> ChatMessage:
        """The message as templates know it: developer is OpenAI's newer name for system."""
        role = "system" if self.role == "developer" else self.role
        return ChatMessage(role, "".join(part.text for part in self.content))


class StreamOptions(_Strict):
    """What a stream carries besides the answer."""

    include_usage: bool | None = None
    """Send the number of tokens in a last chunk."""
    include_obfuscation: Annotated[bool | None, only(False)] = None


class ChatRequest(_Strict):
    """A conversation to continue, and how."""

    model: Annotated[str | None, Field(description="One of GET /v1/models; absent: the model itself.")] = None
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
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
    stream_options: StreamOptions | None = None
    n: Annotated[int | None, Field(ge=1, le=MAX_CHOICES)] = None
    max_tokens: Annotated[int | None, Field(ge=1, description="Absent: what the context leaves.")] = None
    max_completion_tokens: Annotated[int | None, Field(ge=1, description="Newer name of max_tokens.")] = None
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    top_p: Annotated[float | None, Field(gt=0, le=1)] = None
    seed: Annotated[int | None, Field(ge=-_INT64, lt=_INT64)] = None
    stop: Annotated[
        Annotated[list[_StopString], Field(max_length=MAX_STOPS)] | None,
        STRING_AS_LIST,
        WithJsonSchema(
            {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}, {"type": "null"}]}
        ),
    ] = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int | None, Field(ge=0, le=MAX_LOGPROBS)] = None

    # Extensions, as vLLM names them.
    top_k: Annotated[int | None, Field(ge=-1, lt=_INT64, description="0 and -1 keep all tokens.")] = None
    min_tokens: Annotated[int | None, Field(ge=0)] = None
    ignore_eos: bool | None = None
    stop_token_ids: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=MAX_STOP_TOKENS)] | None = None

    # Fields of OpenAI's that change no token, whatever they say.
    user: str | None = None
    metadata: Annotated[dict[str, str] | None, Field(max_length=16)] = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None
    parallel_tool_calls: bool | None = None

    # Fields of OpenAI's that would: taken where they ask for nothing.
    audio: Annotated[Any, only()] = None
    frequency_penalty: Annotated[float | None, only(0.0)] = None
    function_call: Annotated[Any, only("none", "auto")] = None
    functions: Annotated[Any, only([])] = None
    logit_bias: Annotated[Any, only({})] = None
    modalities: Annotated[Any, only(["text"])] = None
    moderation: Annotated[Any, only()] = None
    prediction: Annotated[Any, only()] = None
    presence_penalty: Annotated[float | None, only(0.0)] = None
    prompt_cache_options: Annotated[Any, only()] = None
    reasoning_effort: Annotated[str | None, only("none")] = None
    response_format: Annotated[Any, only({"type": "text"})] = None
    service_tier: Annotated[str | None, only("auto", "default")] = None
    store: Annotated[bool | None, only(False)] = None
    tool_choice: Annotated[Any, only("none", "auto")] = None
    tools: Annotated[Any, only([])] = None
    verbosity: Annotated[str | None, only("medium")] = None
    web_search_options: Annotated[Any, only()] = None
