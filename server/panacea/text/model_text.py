"""Everything about a model's text: tokenizer, vocabulary, chat template, sampling defaults."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from panacea.errors import RequestError
from panacea.model.token_settings import read_json
from panacea.model.tokenizer import load_tokenizer
from panacea.text.chat_template import ChatMessage, ChatTemplate, read_chat_template
from panacea.text.generation_defaults import GenerationDefaults, generation_defaults
from panacea.text.prompt import PromptEncoder
from panacea.text.vocabulary import Vocabulary


@dataclass(frozen=True)
class ModelTokens:
    """Tokenizer, vocabulary and sampling defaults of one model: all that the text of an answer needs."""

    tokenizer: Tokenizer
    vocabulary: Vocabulary
    defaults: GenerationDefaults
    names: Mapping[str, str]
    """Tokens by their names, as `LoadedTokenizer` has them."""

    def encode(self, texts: Sequence[str], *, add_special_tokens: bool = True) -> list[list[int]]:
        """The token ids of each text, equal to those of transformers' `tokenizer(text)`. Safe to call in any thread.

        They include the tokens that the tokenizer adds, such as a begin-of-text token. The name of a special token
        becomes that token, because a raw prompt may contain any token, unlike a message.
        """
        # Unlike `encode`, the batch call releases the GIL.
        encodings = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)
        return [encoding.ids for encoding in encodings]

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of these tokens, with special tokens by name. Safe to call in any thread."""
        # Unlike `decode`, the batch call releases the GIL.
        return self.tokenizer.decode_batch([list(token_ids)], skip_special_tokens=False)[0]

    def token_strings(self, token_ids: Sequence[int]) -> list[str]:
        """Each token as the vocabulary spells it, such as "\u0120the". Empty for ids outside the vocabulary."""
        return [self.tokenizer.id_to_token(token_id) or "" for token_id in token_ids]


@dataclass(frozen=True)
class ModelText(ModelTokens):
    """All of a model's text: its tokens and its chat template."""

    prompts: PromptEncoder | None
    """None for models without a chat template."""

    @property
    def template_variables(self) -> frozenset[str]:
        """Names of the chat template's variables that a request may set."""
        return self.prompts.variables if self.prompts else frozenset()

    def prompt_ids(
        self,
        messages: Sequence[ChatMessage],
        variables: Mapping[str, Any] | None = None,
        *,
        add_generation_prompt: bool = True,
        add_special_tokens: bool = False,
        max_chars: int | None = None,
    ) -> list[int]:
        """The token ids of a conversation, ready for the assistant's next answer. Safe to call in any thread.

        See `PromptEncoder.encode`. Raises `RequestError` if the model does not support the conversation.
        """
        if self.prompts is None:
            raise RequestError(
                "messages: this model has no chat template; use POST /v1/completions with a prompt", "messages"
            )
        return self.prompts.encode(
            messages,
            variables,
            add_generation_prompt=add_generation_prompt,
            add_special_tokens=add_special_tokens,
            max_chars=max_chars,
        )


def load_model_tokens(folder: Path) -> ModelTokens:
    """Reads tokenizer and defaults from a local model folder in transformers' layout, and no chat template.

    Raises `CheckpointError` if a file is missing or damaged.
    """
    loaded = load_tokenizer(folder)
    defaults = generation_defaults(read_json(folder / "generation_config.json"))
    return ModelTokens(loaded.tokenizer, Vocabulary(loaded.tokenizer), defaults, loaded.names)


def with_template(tokens: ModelTokens, folder: Path) -> ModelText:
    """Adds the folder's chat template. It is a program: to compile it may take any time and memory.

    Raises `CheckpointError` if the template does not compile.
    """
    names = tokens.names
    source = read_chat_template(folder, read_json(folder / "tokenizer_config.json"))
    prompts = None
    if source is not None:
        prompts = PromptEncoder(tokens.tokenizer, ChatTemplate(source, names), names.values())
    return ModelText(tokens.tokenizer, tokens.vocabulary, tokens.defaults, names, prompts)


def load_model_text(folder: Path) -> ModelText:
    """Reads tokenizer, chat template and defaults from a local model folder in transformers' layout.

    Raises `CheckpointError` if a file is missing or damaged.
    """
    return with_template(load_model_tokens(folder), folder)
