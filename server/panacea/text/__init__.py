"""Text and token ids: chat template, detokenizer, worker processes. Independent of HTTP and of tensors."""

from panacea.text.answer import Answer, Piece, TokenLogprob
from panacea.text.chat_template import ChatMessage
from panacea.text.model_text import ModelText, ModelTokens, load_model_text, load_model_tokens
from panacea.text.prompt_tokens import PromptTokens

__all__ = [
    "Answer",
    "ChatMessage",
    "ModelText",
    "ModelTokens",
    "Piece",
    "PromptTokens",
    "TokenLogprob",
    "load_model_text",
    "load_model_tokens",
]
