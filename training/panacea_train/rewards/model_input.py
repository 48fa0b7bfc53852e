"""The token sequence that a classifier reads of a conversation."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from panacea.errors import RequestError, first_line
from panacea.text.chat_template import ChatMessage, ChatTemplate
from panacea_train.data.tokenizer_template import chat_template_of, refusal_reason
from panacea_train.prompts import Prompt
from panacea_train.rewards.reward import RewardError, about, excerpt


@dataclass(frozen=True)
class ModelInput:
    """One sequence."""

    ids: list[int]
    types: list[int] | None
    """Which of two texts each token belongs to, for models that use it."""
    is_cut: bool
    """The conversation is longer than the model's limit."""


class InputEncoder:
    """Encodes the input that a model was trained on. With a chat template this is the whole conversation. Without one
    it is a pair of texts, prompt and answer, in the tokenizer's own form, or the answer alone.

    A sequence that is too long loses its beginning: first the prompt's, then the answer's. The tokens that a tokenizer
    adds around its texts stay.
    """

    def __init__(self, name: str, tokenizer: PreTrainedTokenizerBase, limit: int | None, *, answer_alone: bool) -> None:
        """`name` is the model's name in errors; it reads up to `limit` tokens."""
        self._name = name
        self._tokenizer = tokenizer
        self._limit = limit
        self._template = chat_template_of(tokenizer)
        self._answer_alone = answer_alone

    def encode(self, prompt: Prompt, answer: str) -> ModelInput:
        """Raises `RewardError` for conversations that the model cannot read."""
        if self._answer_alone:
            encoded = self._tokenizer([answer], verbose=False)
        elif self._template is not None:
            return self._cut(self._conversation(self._template, prompt, answer), None, None)
        elif len(prompt.messages) > 1:
            raise RewardError(
                f"{self._name} has no chat template, so it reads a question and an answer, but not a conversation of "
                f'{len(prompt.messages)} messages like the one that ends with "{excerpt(prompt.text)}"'
            )
        else:  # as a list of one pair: otherwise transformers treats a pair with an empty answer as a single text
            encoded = self._tokenizer([prompt.text], [answer], verbose=False)
        types = encoded.get("token_type_ids")
        result = self._cut(encoded["input_ids"][0], types and types[0], encoded.sequence_ids(0))
        if not result.ids:
            raise RewardError(f"{self._name} has no tokens to read {about(prompt, answer)}")
        return result

    def _conversation(self, template: ChatTemplate, prompt: Prompt, answer: str) -> list[int]:
        try:
            text = template.render([*prompt.messages, ChatMessage("assistant", answer)], add_generation_prompt=False)
        except RequestError as error:
            reason = first_line(refusal_reason(error))
            raise RewardError(
                f"{self._name} has a chat template that fails: {reason}, {about(prompt, answer)}"
            ) from None
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def _cut(self, ids: list[int], types: list[int] | None, texts: Sequence[int | None] | None) -> ModelInput:
        """`texts`: the text of each token, None for tokens around them; None for a rendered conversation."""
        excess = 0 if self._limit is None else len(ids) - self._limit
        if excess <= 0:
            return ModelInput(ids, types, is_cut=False)
        begins = self._tokenizer.bos_token_id
        movable = [
            place
            for place, token in enumerate(ids)
            if (texts[place] is not None if texts is not None else place > 0 or token != begins)
        ]
        left_out = set(movable[:excess])
        kept = [place for place in range(len(ids)) if place not in left_out]
        return ModelInput(
            [ids[place] for place in kept], None if types is None else [types[place] for place in kept], is_cut=True
        )
