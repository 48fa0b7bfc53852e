"""Renders a model's chat template in jinja's sandbox, as transformers does."""

import json
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NoReturn

from jinja2 import TemplateError, meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from panacea.errors import CheckpointError, RequestError

logger = logging.getLogger(__name__)

MAX_RENDERED_CHARS = 1 << 24
RENDER_LIMIT_S = 10.0
"""A conversation of 4 MB takes 15 ms with a simple template. Both limits are checked after each part that the template
writes."""

ChatRole = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class ChatMessage:
    """One turn of a conversation."""

    role: ChatRole
    content: str


class ChatTemplate:
    """Renders messages in the text format that a model was trained on.

    The constructor raises `CheckpointError` if the template does not compile.
    """

    def __init__(self, source: str, variables: Mapping[str, str]) -> None:
        self.source = source
        self._own: dict[str, Any] = {"messages": [], "tools": None, "documents": None, "add_generation_prompt": True}
        self._own.update(variables)
        environment = _environment()
        try:
            read = meta.find_undeclared_variables(environment.parse(source))
            self._template = environment.from_string(source, globals=_FUNCTIONS)
        except TemplateError as error:
            raise CheckpointError(f"the chat template does not compile: {error}") from error
        own = {*self._own, *_FUNCTIONS, *environment.globals}
        self.free_variables = frozenset(name for name in read - own if not name.endswith("_token"))
        """Variables that the template reads and a request may set, such as `enable_thinking`."""

    def render(
        self,
        messages: Sequence[ChatMessage],
        variables: Mapping[str, Any] | None = None,
        *,
        add_generation_prompt: bool = True,
    ) -> str:
        """The text of the conversation.

        With `add_generation_prompt` it ends where the assistant's next answer begins. `variables` maps some of
        `free_variables` to JSON values. Raises `RequestError` (param "messages") if the template rejects the messages,
        fails on them, or exceeds the limits on text and time.
        """
        own = {
            "messages": [{"role": message.role, "content": message.content} for message in messages],
            "add_generation_prompt": add_generation_prompt,
        }
        try:
            return _bounded(self._template.generate({**(variables or {}), **self._own, **own}))
        except RequestError:
            raise
        # A template is a program that comes with the model. It may raise any exception on unexpected messages.
        except Exception as error:
            logger.info("the chat template rejected a conversation: %s", type(error).__name__)
            raise RequestError(f"messages: {self._reason(error)}", "messages") from error

    def _reason(self, error: Exception) -> str:
        # Only text that occurs in the template's source is shown. Any other text could contain a message's content.
        said = str(error)
        if isinstance(error, TemplateError) and said and said in self.source:
            return said
        return "the model's chat template does not accept this conversation"


def _bounded(parts: Iterable[str]) -> str:
    deadline = time.monotonic() + RENDER_LIMIT_S
    written: list[str] = []
    left = MAX_RENDERED_CHARS
    for part in parts:
        written.append(part)
        left -= len(part)
        if left < 0 or time.monotonic() > deadline:
            raise RequestError(
                "messages: the model's chat template exceeds its limits on text or time for this conversation; "
                "shorten it",
                "messages",
            )
    return "".join(written)


def read_chat_template(folder: Path, tokenizer_config: Mapping[str, Any]) -> str | None:
    """The source of a model folder's chat template; None if it has none (base models)."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    entry = tokenizer_config.get("chat_template")
    if isinstance(entry, list):
        named = {item["name"]: item["template"] for item in entry if isinstance(item, dict)}
        entry = named.get("default")
    return entry if isinstance(entry, str) else None


class _GenerationTag(Extension):
    """`{% generation %}` marks an assistant's words for training. In a prompt the tag has no effect."""

    tags = {"generation"}  # noqa: RUF012 - jinja's own declaration

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    return environment


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # jinja's own filter escapes HTML.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().astimezone().strftime(pattern)


_FUNCTIONS: dict[str, Any] = {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
