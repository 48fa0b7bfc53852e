"""Text and token ids: chat template, detokenizer, stop strings, schema checks. Independent of HTTP and of tensors."""

from panacea.text.answer import Answer, Piece, TokenLogprob
from panacea.text.chat_template import ChatMessage
from panacea.text.grammar_checks import GrammarChecks
from panacea.text.model_text import ModelText, load_model_text
from panacea.text.prompt_tokens import PromptTokens

__all__ = [
    "Answer",
    "ChatMessage",
    "GrammarChecks",
    "ModelText",
    "Piece",
    "PromptTokens",
    "TokenLogprob",
    "load_model_text",
]
