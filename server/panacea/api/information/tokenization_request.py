"""Bodies of `POST /v1/tokenize` and `POST /v1/detokenize`, in vLLM's shapes."""

from typing import Annotated, Any

from pydantic import FailFast, Field

from panacea.api.fields import Strict, only
from panacea.api.generation.chat_request import MAX_MESSAGES, RequestMessage
from panacea.api.generation.template_kwargs import NoTemplate, TemplateKwargs
from panacea.errors import RequestError

_ModelId = Annotated[str | None, Field(description="An id of GET /v1/models. All of them have the same tokenizer.")]


class TokenizeRequest(Strict):
    """A text or a conversation to tokenize: either `prompt` or `messages`."""

    model: _ModelId = None
    prompt: Annotated[str | None, Field(description="A text, as in text completions.")] = None
    messages: Annotated[
        list[RequestMessage] | None,
        Field(min_length=1, max_length=MAX_MESSAGES, description="A conversation, as in chat completions."),
    ] = None
    add_special_tokens: Annotated[
        bool | None,
        Field(
            description="Add the tokenizer's own special tokens, such as a begin-of-text token. Default: true for a "
            "prompt, and false for messages, because a chat template writes them itself."
        ),
    ] = None
    add_generation_prompt: Annotated[
        bool | None,
        Field(description="For messages: end with the tokens that start the assistant's answer. Default: true."),
    ] = None
    chat_template_kwargs: TemplateKwargs = None
    return_token_strs: Annotated[
        bool | None, Field(description="Also return each token as the vocabulary spells it.")
    ] = None

    # Fields of vLLM's without support here. They are accepted at values that have no effect.
    continue_final_message: Annotated[bool | None, only(False)] = None
    """Not supported: null or false."""
    chat_template: NoTemplate = None
    tools: Annotated[Any, only([])] = None
    """Not supported: null or []."""

    def check(self) -> None:
        """Raises `RequestError` for fields that contradict each other."""
        if (self.prompt is None) == (self.messages is None):
            raise RequestError("either prompt or messages is required, and not both", "prompt")
        for name in ("add_generation_prompt", "chat_template_kwargs"):
            if self.messages is None and getattr(self, name) is not None:
                raise RequestError(f"{name} needs messages", name)


class DetokenizeRequest(Strict):
    """Token ids to convert to text."""

    model: _ModelId = None
    tokens: Annotated[
        list[Annotated[int, Field(ge=0)]], FailFast(), Field(description="Token ids. A special token becomes its name.")
    ]
