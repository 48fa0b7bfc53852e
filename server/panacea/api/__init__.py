"""The HTTP API: OpenAI's chat and text completions with a preference per request. Does not import torch."""

from panacea.api.app import create_app
from panacea.api.engine_interface import EngineLike

__all__ = ["EngineLike", "create_app"]
