"""The chat template of a transformers tokenizer, rendered by the server's own renderer."""

from typing import Any

from transformers import PreTrainedTokenizerBase

from panacea.errors import RequestError
from panacea.text.chat_template import ChatTemplate


def chat_template_of(tokenizer: PreTrainedTokenizerBase) -> ChatTemplate | None:
    """The tokenizer's template, the default one if it has several; None if it has none.

    Raises `CheckpointError` for a template that does not compile.
    """
    source: Any = tokenizer.chat_template
    if isinstance(source, dict):
        source = source.get("default")
    if source is None:
        return None
    tokens = {name: token for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    return ChatTemplate(source, tokens)


def refusal_reason(error: RequestError) -> BaseException:
    """What the template itself raised. `ChatTemplate` hides it from clients, but training data are the user's own."""
    return error.__cause__ or error
