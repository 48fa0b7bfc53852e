"""All that the server knows about a model's text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from panacea.errors import RequestError
from panacea.text.chat_template import ChatMessage, ChatTemplate, read_chat_template
from panacea.text.generation_defaults import GenerationDefaults, generation_defaults
from panacea.text.prompt import PromptEncoder
from panacea.text.tokenizer import load_tokenizer, named_tokens, read_json
from panacea.text.vocabulary import Vocabulary


@dataclass(frozen=True)
class ModelText:
    """Tokenizer, chat template and sampling defaults of one model."""

    tokenizer: Tokenizer
    vocabulary: Vocabulary
    prompts: PromptEncoder | None
    """None for models without a chat template."""
    defaults: GenerationDefaults

    @property
    def template_variables(self) -> frozenset[str]:
        """What a request may tell the chat template, beside the messages."""
        return self.prompts.variables if self.prompts else frozenset()

    def prompt_ids(
        self,
        messages: Sequence[ChatMessage],
        variables: Mapping[str, Any] | None = None,
        *,
        add_generation_prompt: bool = True,
        add_special_tokens: bool = False,
    ) -> list[int]:
        """The token ids that ask the model for the assistant's next answer. Safe to call in any thread.

        See `PromptEncoder.encode`. Raises `RequestError` if the model cannot take the conversation.
        """
        if self.prompts is None:
            raise RequestError("messages: this model has no chat template", "messages")
        return self.prompts.encode(
            messages, variables, add_generation_prompt=add_generation_prompt, add_special_tokens=add_special_tokens
        )

    def encode(self, texts: Sequence[str], *, add_special_tokens: bool = True) -> list[list[int]]:
        """The token ids of each text, as transformers' `tokenizer(text)` gives them. Safe to call in any thread.

        The tokens that the tokenizer adds are among them, such as one that begins a text, and the name of a special
        token is that token: unlike a message, a raw prompt may write everything.
        """
        # Unlike `encode`, the batch call lets other threads run.
        encodings = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)
        return [encoding.ids for encoding in encodings]

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of these tokens, special ones by name. Safe to call in any thread."""
        # Unlike `decode`, the batch call lets other threads run.
        return self.tokenizer.decode_batch([list(token_ids)], skip_special_tokens=False)[0]

    def token_strings(self, token_ids: Sequence[int]) -> list[str]:
        """Each token as the vocabulary writes it, such as "\u0120the"; empty for ids that no token has."""
        return [self.tokenizer.id_to_token(token_id) or "" for token_id in token_ids]


def load_model_text(folder: Path) -> ModelText:
    """Read everything from a local model folder, as transformers saves it.

    Raises `CheckpointError` if a file is missing or damaged.
    """
    tokenizer = load_tokenizer(folder)
    tokenizer_config = read_json(folder / "tokenizer_config.json")
    named = named_tokens(tokenizer_config)
    source = read_chat_template(folder, tokenizer_config)
    return ModelText(
        tokenizer=tokenizer,
        vocabulary=Vocabulary(tokenizer),
        prompts=PromptEncoder(tokenizer, ChatTemplate(source, named), named.values()) if source is not None else None,
        defaults=generation_defaults(read_json(folder / "generation_config.json")),
    )
