"""Body of `POST /v1/chat/completions`."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, WithJsonSchema

from panacea.api.fields import STRING_AS_PARTS, Strict, only, without
from panacea.api.generation.generation_request import GenerationRequest
from panacea.api.generation.template_kwargs import NoTemplate, TemplateKwargs
from panacea.engine.sampling_params import MAX_LOGPROBS
from panacea.errors import RequestError
from panacea.text import ChatMessage

MAX_MESSAGES = 2048
MAX_PARTS = 1024


class TextPart(Strict):
    """A piece of a message. Other kinds than text are not supported."""

    type: Annotated[Literal["text"], without(("image_url", "input_audio", "file"), "messages are text")]
    """Always text."""
    text: str
    """The words."""


class Message(Strict):
    """One turn of the conversation."""

    role: Annotated[
        Literal["system", "developer", "user", "assistant"], without(("tool", "function"), "there are no tools")
    ]
    """Who speaks; developer is a newer name for system."""
    content: Annotated[
        list[TextPart],
        STRING_AS_PARTS,
        Field(max_length=MAX_PARTS),
        WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": TextPart.model_json_schema()}]}),
    ]
    """A text, or its parts in a row."""
    # An assistant's message may be sent back as the openai client holds it.
    name: Annotated[str | None, only()] = None
    """null."""
    refusal: Annotated[str | None, only()] = None
    """null."""
    audio: Annotated[Any, only()] = None
    """null."""
    function_call: Annotated[Any, only()] = None
    """null."""
    tool_calls: Annotated[Any, only([])] = None
    """null or []."""
    annotations: Annotated[Any, only([])] = None
    """null or []."""

    def as_chat_message(self) -> ChatMessage:
        """The message as templates know it: developer is OpenAI's newer name for system."""
        role = "system" if self.role == "developer" else self.role
        return ChatMessage(role, "".join(part.text for part in self.content))


class ChatRequest(GenerationRequest):
    """A conversation to continue, and how."""

    prompt_field: ClassVar[str] = "messages"

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    """The conversation so far; the model speaks next."""
    max_completion_tokens: Annotated[int | None, Field(ge=1, description="Newer name of max_tokens.")] = None
    logprobs: bool | None = None
    """Report the log probability of each token, before biases, penalties and temperature."""
    top_logprobs: Annotated[int | None, Field(ge=0, le=MAX_LOGPROBS)] = None
    """Most likely tokens to report at each place, beside the chosen one."""

    # Extensions, as vLLM names them.
    chat_template_kwargs: TemplateKwargs = None
    chat_template: NoTemplate = None

    # Fields of OpenAI's that change no token, whatever they say.
    metadata: Annotated[dict[str, str] | None, Field(max_length=16)] = None
    """Changes nothing."""
    prompt_cache_key: str | None = None
    """Changes nothing: equal prompts are found anyway."""
    prompt_cache_retention: str | None = None
    """Changes nothing."""
    safety_identifier: str | None = None
    """Changes nothing."""
    parallel_tool_calls: bool | None = None
    """Changes nothing: there are no tools."""

    # Fields of OpenAI's that would: taken where they ask for nothing.
    audio: Annotated[Any, only()] = None
    """Not supported: null."""
    function_call: Annotated[Any, only("none", "auto")] = None
    """Not supported: null, none or auto."""
    functions: Annotated[Any, only([])] = None
    """Not supported: null or []."""
    modalities: Annotated[Any, only(["text"])] = None
    """null or ["text"]."""
    moderation: Annotated[Any, only()] = None
    """Not supported: null."""
    prediction: Annotated[Any, only()] = None
    """Not supported: null."""
    prompt_cache_options: Annotated[Any, only()] = None
    """Not supported: null."""
    reasoning_effort: Annotated[str | None, only("none")] = None
    """null or none."""
    service_tier: Annotated[str | None, only("auto", "default")] = None
    """null, auto or default."""
    store: Annotated[bool | None, only(False)] = None
    """null or false: nothing is kept."""
    tool_choice: Annotated[Any, only("none", "auto")] = None
    """Not supported: null, none or auto."""
    tools: Annotated[Any, only([])] = None
    """Not supported: null or []."""
    verbosity: Annotated[str | None, only("medium")] = None
    """null or medium."""
    web_search_options: Annotated[Any, only()] = None
    """Not supported: null."""

    @property
    def alternatives(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def limit(self) -> tuple[str, int | None]:
        if self.max_completion_tokens is None:
            return super().limit
        return "max_completion_tokens", self.max_completion_tokens

    def check(self) -> None:
        super().check()
        if self.top_logprobs is not None and not self.logprobs:
            raise RequestError("top_logprobs needs logprobs: true", "top_logprobs")
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise RequestError("max_tokens and max_completion_tokens are one field under two names", "max_tokens")
