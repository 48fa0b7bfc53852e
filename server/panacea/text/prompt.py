"""Encodes messages to token ids such that a message's text never becomes a control token."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer

from panacea.errors import PromptTooLongError
from panacea.text.chat_template import ChatMessage, ChatTemplate
from panacea.text.control_tokens import ControlTokens


class PromptEncoder:
    """Renders conversations and encodes them.

    The template sees each message as it is. The rendered text tells for each character whether the template or a
    client wrote it, so that a control token in a message stays plain text.
    """

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate, named: Iterable[str]) -> None:
        """`named` are the tokens with a role in the model's configuration, such as end of sequence."""
        self._template = template
        added = tokenizer.get_added_tokens_decoder().values()
        special = {token.content for token in added if token.special} | set(named)
        # Some vocabularies have line breaks and similar text as added tokens. Messages may contain those.
        written = {token.content for token in added if token.content.strip() and token.content in template.source}
        self._control = ControlTokens(tokenizer, special | written)

    @property
    def variables(self) -> frozenset[str]:
        """Names of the template's variables that a request may set."""
        return self._template.free_variables

    def encode(
        self,
        messages: Sequence[ChatMessage],
        variables: Mapping[str, Any] | None = None,
        *,
        add_generation_prompt: bool = True,
        add_special_tokens: bool = False,
        max_chars: int | None = None,
    ) -> list[int]:
        """The token ids of the conversation.

        With `add_generation_prompt` they end where the assistant's next answer begins. `variables` maps names of
        `self.variables` to JSON values. `add_special_tokens` adds the tokenizer's own special tokens, which most
        templates write themselves. A rendered text of more than `max_chars` is not encoded.

        Raises `PromptTooLongError` for such a text. Raises `RequestError` (param "messages") if the template or the
        tokenizer does not support the messages.
        """
        text = self._template.render_traced(messages, variables, add_generation_prompt=add_generation_prompt)
        if max_chars is not None and len(text) > max_chars:
            raise PromptTooLongError(max_chars, "messages")
        return self._control.encode(text, add_special_tokens=add_special_tokens)
