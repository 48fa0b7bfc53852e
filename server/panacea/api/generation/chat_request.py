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
    """A part of a message. Only text is supported."""

    type: Annotated[Literal["text"], without(("image_url", "input_audio", "file"), "messages are text")]
    """Always text."""
    text: str
    """The part's text."""


class RequestMessage(Strict):
    """One turn of the conversation."""

    role: Annotated[
        Literal["system", "developer", "user", "assistant"], without(("tool", "function"), "there are no tools")
    ]
    """The author of the message. developer is a newer name for system."""
    content: Annotated[
        list[TextPart],
        Field(max_length=MAX_PARTS),  # before the next line, so that a longer list is not looked at
        STRING_AS_PARTS,
        WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": TextPart.model_json_schema()}]}),
    ]
    """A text, or a list of text parts. They are joined for a chat template that does not read parts."""
    # The openai client sends these fields back with an assistant's message.
    name: Annotated[str | None, only()] = None
    """Not supported: null."""
    refusal: Annotated[str | None, only()] = None
    """Not supported: null."""
    audio: Annotated[Any, only()] = None
    """Not supported: null."""
    function_call: Annotated[Any, only()] = None
    """Not supported: null."""
    tool_calls: Annotated[Any, only([])] = None
    """Not supported: null or []."""
    annotations: Annotated[Any, only([])] = None
    """Not supported: null or []."""

    def as_chat_message(self) -> ChatMessage:
        """The message for the chat template, which knows developer as system."""
        role = "system" if self.role == "developer" else self.role
        texts = tuple(part.text for part in self.content)
        return ChatMessage(role, "".join(texts), texts if len(texts) > 1 else ())


class ChatRequest(GenerationRequest):
    """A conversation to continue, with a preference and sampling parameters."""

    prompt_field: ClassVar[str] = "messages"

    messages: Annotated[list[RequestMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    """The conversation so far. The model generates the next message."""
    max_completion_tokens: Annotated[int | None, Field(ge=1, description="Newer name of max_tokens.")] = None
    logprobs: bool | None = None
    """Return the log probability of each token, before biases, penalties and temperature."""
    top_logprobs: Annotated[int | None, Field(ge=0, le=MAX_LOGPROBS)] = None
    """Number of most likely tokens to return at each position, besides the chosen one. Needs logprobs: true."""

    # Extensions with vLLM's names.
    chat_template_kwargs: TemplateKwargs = None
    chat_template: NoTemplate = None

    # Fields of OpenAI's without effect on the answer. They are accepted at any value.
    metadata: Annotated[dict[str, str] | None, Field(max_length=16)] = None
    """No effect."""
    prompt_cache_key: str | None = None
    """No effect: the prefix cache finds equal prompts without it."""
    prompt_cache_retention: str | None = None
    """No effect."""
    safety_identifier: str | None = None
    """No effect."""
    parallel_tool_calls: bool | None = None
    """No effect: tools are not supported."""

    # Fields of OpenAI's without support here. They are accepted at values that have no effect.
    audio: Annotated[Any, only()] = None
    """Not supported: null."""
    function_call: Annotated[Any, only("none", "auto")] = None
    """Not supported: null, none or auto."""
    functions: Annotated[Any, only([])] = None
    """Not supported: null or []."""
    modalities: Annotated[Any, only(["text"])] = None
    """Only text is supported: null or ["text"]."""
    moderation: Annotated[Any, only()] = None
    """Not supported: null."""
    prediction: Annotated[Any, only()] = None
    """Not supported: null."""
    prompt_cache_options: Annotated[Any, only()] = None
    """Not supported: null."""
    reasoning_effort: Annotated[str | None, only("none")] = None
    """Not supported: null or none."""
    service_tier: Annotated[str | None, only("auto", "default")] = None
    """Not supported: null, auto or default."""
    store: Annotated[bool | None, only(False)] = None
    """Not supported: null or false. The server stores no answers."""
    tool_choice: Annotated[Any, only("none", "auto")] = None
    """Not supported: null, none or auto."""
    tools: Annotated[Any, only([])] = None
    """Not supported: null or []."""
    verbosity: Annotated[str | None, only("medium")] = None
    """Not supported: null or medium."""
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
            raise RequestError("max_tokens and max_completion_tokens differ; send one of them", "max_tokens")
