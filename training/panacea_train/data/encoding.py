"""Conversations as tokens: the prompts that a server sees and the answers it should give."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import cast

from transformers import PreTrainedTokenizerBase

from panacea.errors import ConfigError, RequestError
from panacea.text.chat_template import ChatMessage, ChatTemplate
from panacea_train.data.tokenizer_template import chat_template_of, refusal_reason


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt's tokens, with the data that an answer's encoding needs."""

    ids: list[int]
    messages: Sequence[ChatMessage]
    text: str


class ConversationEncoder:
    """Encodes prompts up to where the answer begins, and answers up to the token that ends them.

    A prompt is the model's chat template with its generation prompt, exactly as a server feeds it to the model. An
    answer is the text that the template adds for it, so that its end of turn is the template's. The answer is encoded
    alone, because a server also appends tokens to an encoded prompt. Some templates rewrite earlier turns, for example
    by removing their thoughts. Then the answer's own text is taken.

    A model without a template gets the text of a single message unchanged.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop_ids: Collection[int] = ()) -> None:
        """`stop_ids`: the tokens that end an answer, besides the tokenizer's own end of sequence.

        Raises `ConfigError` if there is no such token, and `CheckpointError` for a template that does not compile.
        """
        self._tokenizer = tokenizer
        own = cast(int | None, tokenizer.eos_token_id)
        if own is None and not stop_ids:
            raise ConfigError(
                "neither the tokenizer nor the model names a token that ends an answer: set eos_token in "
                "tokenizer_config.json"
            )
        self._stop_ids = {*stop_ids, *(() if own is None else (own,))}
        self._end = own if own is not None else min(stop_ids)
        self._template = chat_template_of(tokenizer)

    def prompt(self, messages: Sequence[ChatMessage]) -> EncodedPrompt:
        """Raises `ValueError` with the reason if the model's template does not take these messages."""
        if self._template is not None:
            text = _rendered(self._template, messages, generation_prompt=True)
            return EncodedPrompt(self._ids(text), messages, text)
        if len(messages) > 1:
            raise ValueError("the model has no chat template: a prompt must be a single text")
        text = messages[0].content
        return EncodedPrompt(list(self._tokenizer(text)["input_ids"]), messages, text)

    def answer(self, prompt: EncodedPrompt, answer: str) -> list[int]:
        """The tokens of `answer` to `prompt`, including the token that ends it."""
        text = answer
        if self._template is not None:
            conversation = [*prompt.messages, ChatMessage("assistant", answer)]
            whole = _rendered(self._template, conversation, generation_prompt=False)
            if whole.startswith(prompt.text):
                text = whole.removeprefix(prompt.text)
        ids = self._ids(text)
        last = next((place for place in reversed(range(len(ids))) if ids[place] in self._stop_ids), None)
        # Text that a template writes after the end of a turn (usually a line break) is never generated.
        if last is None or str(self._tokenizer.decode(ids[last + 1 :])).strip():
            return [*ids, self._end]
        return ids[: last + 1]

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])


def _rendered(template: ChatTemplate, messages: Sequence[ChatMessage], *, generation_prompt: bool) -> str:
    try:
        return template.render(messages, add_generation_prompt=generation_prompt)
    except RequestError as error:
        raise ValueError(f"the model's chat template refuses this conversation: {refusal_reason(error)}") from None
