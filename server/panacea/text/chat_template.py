"""A model's chat template, rendered in jinja's sandbox as transformers does it."""

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
"""A conversation of 4 MB takes 15 ms with a simple template. Both are looked at whenever the template has written
something."""

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class ChatMessage:
    """One turn of a conversation."""

    role: Role
    content: str


class ChatTemplate:
    """Turns messages into the text that a model was trained on.

    Raises `CheckpointError` when built from a template that does not compile.
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
        """What it reads beyond what it always gets, such as `enable_thinking`: requests may say what these are."""

    def render(
        self,
        messages: Sequence[ChatMessage],
        variables: Mapping[str, Any] | None = None,
        *,
        add_generation_prompt: bool = True,
    ) -> str:
        """The conversation's text, up to where the assistant's next answer begins if `add_generation_prompt`.

        `variables` are JSON values of some of `free_variables`. Raises `RequestError` (param "messages") if the
        template refuses the messages, fails on them, or makes too much of them.
        """
        own = {
            "messages": [{"role": message.role, "content": message.content} for message in messages],
            "add_generation_prompt": add_generation_prompt,
        }
        try:
            return _bounded(self._template.generate({**(variables or {}), **self._own, **own}))
        except RequestError:
            raise
        # A template is a program that came with the model: it may fail in any way on messages it did not expect.
        except Exception as error:
            logger.info("the chat template refused a conversation: %s", type(error).__name__)
            raise RequestError(f"messages: {self._reason(error)}", "messages") from error

    def _reason(self, error: Exception) -> str:
        # Only words that stand in the template itself are shown: others could carry a message's content.
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
            raise RequestError("messages: the model's chat template makes too much of this conversation", "messages")
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


class _Generation(Extension):
    """`{% generation %}` marks what an assistant said, for training; a prompt just contains it."""

    tags = {"generation"}  # noqa: RUF012 - jinja's own declaration

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
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
