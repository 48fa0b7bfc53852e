"""The sandbox in which chat templates run. All text in it is traced to the template or to the client."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import wraps
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from panacea.text.traced_text import MIXED, TEMPLATE, TracedText, computed, origins_of, plain


class _GenerationTag(Extension):
    """`{% generation %}` marks an assistant's words for training. In a prompt the tag has no effect."""

    tags = {"generation"}  # noqa: RUF012 - jinja's own declaration

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _TracedCode(CodeGenerator):
    """Compiles templates such that their own text is `TracedText`, and stays so where parts are joined."""

    environment: "TemplateEnvironment"

    def visit_Const(self, node: nodes.Const, frame: Frame) -> None:  # noqa: N802 - jinja's name
        self.write(self._source(node.as_const(frame.eval_ctx)))

    def visit_TemplateData(self, node: nodes.TemplateData, frame: Frame) -> None:  # noqa: N802 - jinja's name
        self.write(self._source(node.data))

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802 - jinja's name
        self.write("environment.joined((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def _output_const_repr(self, group: Iterable[Any]) -> str:
        return self._source("".join(group))

    def _output_child_pre(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
        self.write("environment.written(")

    def _source(self, value: object) -> str:
        """Code of a constant. The optimiser also makes constants of tuples, lists and dictionaries."""
        match value:
            case str():
                self.environment.constants.append(TracedText(value, TEMPLATE))
                return f"environment.constants[{len(self.environment.constants) - 1}]"
            case tuple():
                return f"({''.join(f'{self._source(item)}, ' for item in value)})"
            case list():
                return f"[{', '.join(map(self._source, value))}]"
            case dict():
                return f"{{{', '.join(f'{self._source(key)}: {self._source(item)}' for key, item in value.items())}}}"
            case _:
                return repr(value)


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """Filters, functions and tags as transformers has them. One environment compiles one template."""

    code_generator_class = _TracedCode

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols])
        self.constants: list[TracedText] = []
        """The texts of the compiled template."""
        self.filters = {name: _traced_filter(function) for name, function in self.filters.items()}
        self.filters["join"] = _traced_join(self.filters["join"])
        self.filters["tojson"] = _tojson
        self.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        result = super().call(__context, __obj, *args, **kwargs)
        method = getattr(__obj, "__wrapped__", __obj)
        if type(result) is str or (isinstance(result, str) and getattr(method, "__name__", "") in _FORMATS):
            return computed(result, getattr(method, "__self__", None), args, kwargs)
        return result

    @staticmethod
    def written(value: object) -> TracedText:
        """`value` as the template's output shows it."""
        if isinstance(value, TracedText):
            return value
        return computed(str(value), value)

    def joined(self, values: Iterable[object]) -> TracedText:
        return self.concat(map(self.written, values))

    @staticmethod
    def concat(parts: Iterable[str]) -> TracedText:
        parts = list(parts)
        return TracedText("".join(parts), b"".join(map(origins_of, parts)))


_FORMATS = ("format", "format_map")


def _traced_filter(function: Callable[..., Any]) -> Callable[..., Any]:
    # `wraps` also copies jinja's note on whether the function takes the context.
    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        # Some filters join parts with text of their own.
        if type(result) is str or (isinstance(result, TracedText) and MIXED in origins_of(result)):
            whole = computed(result, args, kwargs)
            return result if isinstance(result, TracedText) and MIXED in origins_of(whole) else whole
        return result

    return call


def _traced_join(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(context: Any, value: Any, d: str = "", attribute: str | int | None = None) -> Any:
        return function(context, value, TracedText(d, origins_of(d) or TEMPLATE), attribute)

    return call


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> TracedText:
    # jinja's own filter escapes HTML.
    written = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    if isinstance(indent, str) or '"' in "".join(separators or ()):
        return computed(written, value, indent, separators)
    origins = bytearray((TEMPLATE,)) * len(written)
    for place, text in zip(_JSON_TEXT.finditer(written), _texts(value, sort_keys), strict=True):
        origins[place.start() : place.end()] = origins_of(computed(place[0], text))
    return TracedText(written, bytes(origins))


_JSON_TEXT = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')


def _texts(value: object, sort_keys: bool) -> Iterator[object]:
    """The values that JSON writes between quotes, in their order."""
    match value:
        case str():
            yield value
        case Mapping():
            for name, member in sorted(value.items()) if sort_keys else value.items():
                yield name
                yield from _texts(member, sort_keys)
        case list() | tuple():
            for member in value:
                yield from _texts(member, sort_keys)
        case _:
            pass


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(plain(message))


def _strftime_now(pattern: str) -> str:
    return datetime.now().astimezone().strftime(plain(pattern))
