"""Between text and token ids: chat template, detokenising, stop strings. Knows no HTTP and no tensors."""

from panacea.text.answer import Answer, Piece, TokenLogprob
from panacea.text.chat_template import ChatMessage
from panacea.text.model_text import ModelText, load_model_text
from panacea.text.prompt_tokens import PromptTokens

__all__ = ["Answer", "ChatMessage", "ModelText", "Piece", "PromptTokens", "TokenLogprob", "load_model_text"]
