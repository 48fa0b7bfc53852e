"""Bodies of `POST /v1/tokenize` and `POST /v1/detokenize`: vLLM's."""

from typing import Annotated, Any

from pydantic import Field

from panacea.api.fields import Strict, only
from panacea.api.generation.chat_request import MAX_MESSAGES, Message
from panacea.api.generation.template_kwargs import NoTemplate, TemplateKwargs
from panacea.errors import RequestError

_ModelId = Annotated[str | None, Field(description="One of GET /v1/models. All of them have the same tokens.")]


class TokenizeRequest(Strict):
    """A text or a conversation whose tokens are wanted: `prompt` or `messages`."""

    model: _ModelId = None
    prompt: Annotated[str | None, Field(description="A text, as text completions take it.")] = None
    messages: Annotated[
        list[Message] | None,
        Field(min_length=1, max_length=MAX_MESSAGES, description="A conversation, as chat completions take it."),
    ] = None
    add_special_tokens: Annotated[
        bool | None,
        Field(
            description="Add the tokens that the tokenizer puts around a text, such as one that begins it. Absent: "
            "true for a prompt, false for messages, because a chat template writes them itself."
        ),
    ] = None
    add_generation_prompt: Annotated[
        bool | None,
        Field(description="For messages: end with what asks the model for its answer. Absent: true."),
    ] = None
    chat_template_kwargs: TemplateKwargs = None
    return_token_strs: Annotated[
        bool | None, Field(description="Return each token as the vocabulary writes it, too.")
    ] = None

    # Fields of vLLM's that are taken where they ask for nothing.
    continue_final_message: Annotated[bool | None, only(False)] = None
    """Not supported: null or false."""
    chat_template: NoTemplate = None
    tools: Annotated[Any, only([])] = None
    """Not supported: null or []."""

    def check(self) -> None:
        """Raises `RequestError` for fields that do not fit together."""
        if (self.prompt is None) == (self.messages is None):
            raise RequestError("either prompt or messages is required, and not both", "prompt")
        for name in ("add_generation_prompt", "chat_template_kwargs"):
            if self.messages is None and getattr(self, name) is not None:
                raise RequestError(f"{name} needs messages", name)


class DetokenizeRequest(Strict):
    """Tokens whose text is wanted."""

    model: _ModelId = None
    tokens: Annotated[
        list[Annotated[int, Field(ge=0)]], Field(description="Token ids. Special tokens become text by their names.")
    ]
