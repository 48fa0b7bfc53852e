"""The HTTP half: OpenAI's chat and text completions, each with its own preference. Knows no tensors."""

from panacea.api.app import create_app
from panacea.api.engine_interface import EngineLike

__all__ = ["EngineLike", "create_app"]
