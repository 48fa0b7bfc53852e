"""Renders a model's chat template in jinja's sandbox, as transformers does."""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from jinja2 import TemplateError, meta

from panacea.errors import CheckpointError, RequestError, first_line
from panacea.model.token_settings import read_json
from panacea.text.template_environment import TemplateEnvironment
from panacea.text.traced_text import MESSAGE, TEMPLATE, TracedText, plain, traced

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
    parts: tuple[str, ...] = ()
    """The texts that the client divided `content` into. Empty for a message that came as one text."""


@dataclass(frozen=True)
class _ContentForms:
    """Which forms of a message's content the template shows whole."""

    text: bool
    parts: bool
    part: bool
    """A list of one part. Some templates show only the first."""


class ChatTemplate:
    """Renders messages in the text format that a model was trained on.

    The constructor raises `CheckpointError` if the template does not compile.
    """

    def __init__(self, source: str, variables: Mapping[str, str]) -> None:
        self.source = source
        self._own: dict[str, Any] = {"messages": [], "tools": None, "documents": None, "add_generation_prompt": True}
        self._own.update(traced(variables, TEMPLATE))
        environment = TemplateEnvironment()
        try:
            read = meta.find_undeclared_variables(environment.parse(source))
            self._template = environment.from_string(source)
        # jinja raises its own errors, and RecursionError, MemoryError or SyntaxError for what is nested too deeply.
        except Exception as error:
            raise CheckpointError(f"the chat template does not compile: {first_line(error)}") from error
        own = {*self._own, *environment.globals}
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
        return plain(self.render_traced(messages, variables, add_generation_prompt=add_generation_prompt))

    def render_traced(
        self,
        messages: Sequence[ChatMessage],
        variables: Mapping[str, Any] | None = None,
        *,
        add_generation_prompt: bool = True,
    ) -> TracedText:
        """As `render`, with the origin of each character: the template, or the contents and `variables`."""
        shown = [self._shown(message) for message in messages]
        try:
            return self._rendered(shown, variables or {}, add_generation_prompt=add_generation_prompt)
        except RequestError:
            raise
        # A template is a program that comes with the model. It may raise any exception on unexpected messages.
        except Exception as error:
            logger.info("the chat template rejected a conversation: %s", type(error).__name__)
            raise RequestError(f"messages: {self._reason(error)}", "messages") from error

    def _rendered(
        self, messages: Sequence[Any], variables: Mapping[str, Any], *, add_generation_prompt: bool
    ) -> TracedText:
        own = {"messages": messages, "add_generation_prompt": add_generation_prompt}
        return _bounded(self._template.generate({**traced(variables, MESSAGE), **self._own, **own}))

    def _shown(self, message: ChatMessage) -> dict[TracedText, Any]:
        forms = self._forms[message.role]
        if message.parts and forms.parts:
            return _message(message.role, message.parts)
        return _message(message.role, message.content if forms.text or not forms.part else (message.content,))

    @cached_property
    def _forms(self) -> dict[ChatRole, _ContentForms]:
        """The forms that the template takes, per role.

        Some templates read only texts, some only lists of parts, and some both. A test conversation shows it best:
        macros and filters hide it in the template's source.
        """
        forms: dict[ChatRole, _ContentForms] = {}
        asked: str | tuple[str, ...] = _ASKED
        for role in ("user", "system", "assistant"):
            shown = [self._shows(role, content, asked) for content in (_PROBE, _PROBE_PARTS, (_PROBE,))]
            forms[role] = _ContentForms(*shown)
            if role == "user" and not forms[role].text and forms[role].part:
                asked = (_ASKED,)
        return forms

    def _shows(self, role: ChatRole, content: str | Sequence[str], asked: str | Sequence[str]) -> bool:
        user, message = _message("user", asked), _message(role, content)
        conversations = {"user": [message], "system": [message, user], "assistant": [user, message, user]}
        try:
            rendered = self._rendered(conversations[role], {}, add_generation_prompt=False)
        except RequestError:
            # A template without end is no answer to this question. The request fails, as it would with the template.
            raise
        except Exception:
            return False
        words = (content,) if isinstance(content, str) else content
        return all(word in rendered for word in words) and not any(quoted in rendered for quoted in _QUOTED_PARTS)

    def _reason(self, error: Exception) -> str:
        # Only text that occurs in the template's source is shown. Any other text could contain a message's content.
        said = plain(str(error))
        if isinstance(error, TemplateError) and said and said in self.source:
            return said
        return "the model's chat template does not accept this conversation"


_ASKED = "1"
_PROBE = "48151623"
"""No case, no spaces: it stays what it is in any template that shows it."""
_PROBE_PARTS = ("481516", "2342108")
_QUOTED_PARTS = ("'type': 'text'", '"type": "text"', '"type":"text"')
"""Signs of a template that shows the list of parts itself."""


def _message(role: ChatRole, content: str | Sequence[str]) -> dict[TracedText, Any]:
    if not isinstance(content, str):
        parts = [{_key("type"): _key("text"), _key("text"): TracedText(part, MESSAGE)} for part in content]
        return {_key("role"): _key(role), _key("content"): parts}
    return {_key("role"): _key(role), _key("content"): TracedText(content, MESSAGE)}


def _key(name: str) -> TracedText:
    return TracedText(name, TEMPLATE)


def _bounded(parts: Iterable[str]) -> TracedText:
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
    return TemplateEnvironment.concat(written)


def read_chat_template(folder: Path, tokenizer_config: Mapping[str, Any]) -> str | None:
    """The source of a model folder's chat template, the default one of several; None if it has none (base models).

    Raises `CheckpointError` if a file cannot be read.
    """
    for name in ("chat_template.jinja", "additional_chat_templates/default.jinja"):
        if (file := folder / name).is_file():
            try:
                return file.read_text(encoding="utf-8")
            except (OSError, ValueError) as error:
                raise CheckpointError(f"{file} cannot be read: {error}") from error
    # The last is that of models which also take images.
    for settings in (tokenizer_config, read_json(folder / "chat_template.json")):
        entry = settings.get("chat_template")
        if isinstance(entry, list):
            named = {item["name"]: item["template"] for item in entry if isinstance(item, dict)}
            entry = named.get("default")
        if isinstance(entry, str):
            return entry
    return None
