"""Conversations as the tokens that a server will see and should answer with."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import cast

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from panacea.errors import ConfigError
from panacea_train.data.records import Message


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt's tokens, and what is needed to encode an answer to it."""

    ids: list[int]
    messages: Sequence[Message]
    text: str


class ConversationEncoder:
    """Encodes prompts up to where the answer begins, and answers up to the token that ends them.

    A prompt is the model's chat template with its generation prompt, exactly what a server feeds to the model. An
    answer is what the template writes when the same conversation goes on with it, so that its end of turn is the
    template's; it is encoded by itself, because a server too appends tokens to a prompt that is already encoded. Where
    a template rewrites what came before (some strip the thoughts of earlier turns), the answer's own text is taken.

    A model without template gets the text of a single message as it is.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop_ids: Collection[int] = ()) -> None:
        """`stop_ids`: the tokens that end an answer, besides the tokenizer's own end of sequence.

        Raises `ConfigError` for a tokenizer without such a token.
        """
        self._tokenizer = tokenizer
        own = cast(int | None, tokenizer.eos_token_id)
        if own is None and not stop_ids:
            raise ConfigError("neither the tokenizer nor the model says which token ends an answer")
        self._stop_ids = {*stop_ids, *(() if own is None else (own,))}
        self._end = own if own is not None else min(stop_ids)
        self._has_template = tokenizer.chat_template is not None

    def prompt(self, messages: Sequence[Message]) -> EncodedPrompt:
        """Raises `ValueError` with the reason if the model's template does not take these messages."""
        if self._has_template:
            text = self._render(messages, generation_prompt=True)
            return EncodedPrompt(self._ids(text), messages, text)
        if len(messages) > 1:
            raise ValueError("the model has no chat template, so a prompt must be one text")
        text = messages[0].content
        return EncodedPrompt(list(self._tokenizer(text)["input_ids"]), messages, text)

    def answer(self, prompt: EncodedPrompt, answer: str) -> list[int]:
        """The tokens of `answer` to `prompt`, the last of which ends it."""
        text = answer
        if self._has_template:
            whole = self._render([*prompt.messages, Message("assistant", answer)], generation_prompt=False)
            if whole.startswith(prompt.text):
                text = whole.removeprefix(prompt.text)
        ids = self._ids(text)
        last = next((place for place in reversed(range(len(ids))) if ids[place] in self._stop_ids), None)
        # What a template writes after the end of a turn (a line break, usually) nobody generates.
        if last is None or str(self._tokenizer.decode(ids[last + 1 :])).strip():
            return [*ids, self._end]
        return ids[: last + 1]

    def _render(self, messages: Sequence[Message], *, generation_prompt: bool) -> str:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        try:
            text = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=generation_prompt)
        except TemplateError as error:
            raise ValueError(f"the model's chat template refuses this conversation: {error}") from None
        assert isinstance(text, str)
        return text

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])
