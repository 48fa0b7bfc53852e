"""JSON schemas that answers must follow. llguidance (https://github.com/guidance-ai/llguidance) computes token masks.

A grammar is compiled in a thread, without the interpreter's lock, while the engine runs its steps. Masks are computed
between steps. The mask of one token takes 3 to 100 us, and at most a few ms, because the work per token is limited.
"""

import json
import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from decimal import Context, Decimal
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from panacea.errors import RequestError, first_line

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer
    from llguidance._lib import JsonCompileOptions

logger = logging.getLogger(__name__)

FIELD = "response_format"
"""The request field that errors name."""

_CACHED = 64
"""Compiled grammars that are kept for later requests. A copy takes half a microsecond."""

STEP_LEXER_FUEL = 200_000
"""Limit of the work for regular expressions at one token, in llguidance's unit. The worst schemas that were tried used
it up in 10 ms."""

_STACK_BYTES = 64 << 20
"""Stack size of the compiling thread. The compiler recurses once for each definition that refers to the next one. This
is four times the stack of `grammar_check`, and only the used part takes memory."""

_OPTIONS: "JsonCompileOptions" = {
    "whitespace_flexible": False,
    "item_separator": ",",
    "key_separator": ":",
    "coerce_one_of": False,  # true would treat oneOf as anyOf
    "lenient": False,  # true would ignore keywords that are not implemented
}
_SPACED_OPTIONS: "JsonCompileOptions" = {
    **_OPTIONS,
    "whitespace_flexible": True,
    # The styles that models know, on one line or indented. The limit is for models that never end their whitespace.
    "whitespace_pattern": r" |\n[ \t]{0,64}",
}

_GUIDANCE = "x-guidance"
"""A schema's member for llguidance. Only whitespace is a client's choice."""
_SPACED = {"whitespace_flexible": True}
_EXACT = Context(prec=1 << 17)
"""More digits than a schema has characters."""

_LARGEST = 2**53
_MOST_DIGITS = 15
_LEAST_EXPONENT = -22
"""llguidance reads numbers as doubles, with one rounding for the digits and one for the exponent. Within these limits
both are exact."""

_KEYWORDS = frozenset(
    (
        "$anchor",
        "$dynamicRef",
        "$recursiveRef",
        "additionalItems",
        "contains",
        "contentEncoding",
        "contentMediaType",
        "contentSchema",
        "dependencies",
        "dependentRequired",
        "dependentSchemas",
        "else",
        "if",
        "maxContains",
        "minContains",
        "not",
        "patternProperties",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
        "uniqueItems",
    )
)
"""Keywords that an error message may name. It repeats nothing else of a schema."""


class Grammar:
    """The state of one answer in its grammar."""

    def __init__(self, matcher: "LLMatcher") -> None:
        self._matcher = matcher

    def mask(self) -> bytes:
        """One bit per token, the lowest bit of each byte first. 1 means that the token may come next.

        At the end of the grammar, and after a failure, only the end-of-sequence tokens are allowed.
        """
        return self._matcher.compute_bitmask()

    def accept(self, token_id: int) -> None:
        """Advances by a token of the answer, which the last mask must have allowed."""
        self._matcher.consume_token(token_id)

    @property
    def has_ended(self) -> bool:
        """Whether the grammar allows no further token."""
        return self._matcher.is_stopped()

    @property
    def failure(self) -> str | None:
        """Why the answer cannot go on in this grammar, as a sentence for its client; None if it can."""
        if not self._matcher.is_error():
            return None
        return f"{FIELD}: the JSON schema takes too much work to follow; simplify it"


class Grammars:
    """Compiles grammars for one vocabulary."""

    def __init__(self, tokenizer: "LLTokenizer") -> None:
        self._tokenizer = tokenizer
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="grammar")
        self._compiled: OrderedDict[str, Future[LLMatcher]] = OrderedDict()

    @classmethod
    def load(cls, folder: Path, vocab_size: int, eos_token_ids: Sequence[int]) -> "Grammars | None":
        """For the tokenizer in a model's folder. If the tokenizer or llguidance is missing, logs why and returns
        None."""
        file = folder / "tokenizer.json"
        try:
            from llguidance import LLTokenizer  # noqa: PLC0415 (the engine also runs without)

            return cls(LLTokenizer(file.read_text("utf-8"), n_vocab=vocab_size, eos_token=list(eos_token_ids)))
        except (ImportError, OSError, ValueError) as error:
            logger.info("structured output is not available: %s", first_line(error))
            return None

    def begin(self, schema: str) -> "Future[LLMatcher]":
        """Starts to compile a schema in the background. Pass the result to `start`, which raises `RequestError` for a
        schema that is not supported."""
        if schema not in self._compiled:
            previous = threading.stack_size(_STACK_BYTES)
            try:
                self._compiled[schema] = self._thread.submit(compile_schema, self._tokenizer, schema)
            finally:
                threading.stack_size(previous)
        self._compiled.move_to_end(schema)
        while len(self._compiled) > _CACHED:
            self._compiled.popitem(last=False)
        return self._compiled[schema]

    @staticmethod
    def start(compiled: "Future[LLMatcher]") -> Grammar:
        """The grammar of a new answer. Waits until it is compiled. Raises `RequestError` if that failed."""
        try:
            return Grammar(compiled.result().deep_copy())
        except RequestError:
            raise
        except BaseException as error:  # a panic in Rust is not an `Exception`
            raise RequestError(f"{FIELD}: the JSON schema cannot be followed", FIELD) from error


def compile_schema(tokenizer: "LLTokenizer", schema: str) -> "LLMatcher":
    """Compiles a JSON schema.

    Answers are compact, unless the schema has the member `"x-guidance": {"whitespace_flexible": true}`.

    Raises `RequestError` if no answer can follow the schema, if llguidance does not support it, or if it exceeds
    llguidance's limits. These limit the size of a grammar, but not the time for every regular expression. Run
    `grammar_check` first on a schema from an untrusted source.
    """
    from llguidance import LLMatcher, LLParserLimits  # noqa: PLC0415 (as above)

    # Large regular expressions are evaluated on demand, so that the time to compile does not depend on the size of the
    # vocabulary.
    limits = LLParserLimits(step_lexer_fuel=STEP_LEXER_FUEL, precompute_large_lexemes=False, verbose_errors=False)
    options = _SPACED_OPTIONS if _asks_for_spaces(_checked(schema)) else _OPTIONS
    try:
        grammar = LLMatcher.grammar_from_json_schema(schema, overrides=options)
    except ValueError as error:
        raise RequestError(f"{FIELD}: the JSON schema is not valid", FIELD) from error
    matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=limits)
    mask = matcher.compute_bitmask()
    if matcher.is_error() or matcher.is_stopped() or not any(mask):
        raise RequestError(f"{FIELD}: the JSON schema cannot be followed: {_reason(matcher.get_error())}", FIELD)
    return matcher


def _checked(schema: str) -> object:
    """The parsed schema. Raises `RequestError` if it is not JSON, or has a number that cannot be enforced exactly."""
    try:
        parsed: object = json.loads(schema, parse_int=Decimal, parse_float=Decimal, parse_constant=_no_number)
    except (ValueError, RecursionError, ArithmeticError) as error:
        raise RequestError(f"{FIELD}: the JSON schema is not valid", FIELD) from error
    left = [parsed]
    while left:
        match left.pop():
            case dict() as members:
                left.extend(members.values())
            case list() as items:
                left.extend(items)
            case Decimal() as number if not _is_exact(number):
                raise RequestError(
                    f"{FIELD}: numbers in a JSON schema must be between -2^53 and 2^53, with at most {_MOST_DIGITS} "
                    "digits if they have a fraction; others cannot be enforced exactly",
                    FIELD,
                )
            case _:
                pass
    return parsed


def _is_exact(number: Decimal) -> bool:
    if not number:
        return True
    if not _LEAST_EXPONENT <= number.adjusted() <= len(str(_LARGEST)) or abs(number) > _LARGEST:
        return False
    _, digits, exponent = number.normalize(_EXACT).as_tuple()
    is_whole = isinstance(exponent, int) and exponent >= 0
    return is_whole or (len(digits) <= _MOST_DIGITS and isinstance(exponent, int) and exponent >= _LEAST_EXPONENT)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _asks_for_spaces(schema: object) -> bool:
    asked: object = schema.get(_GUIDANCE) if isinstance(schema, dict) else None
    if asked not in (None, _SPACED):
        raise RequestError(
            f'{FIELD}: {_GUIDANCE} must be {{"whitespace_flexible": true}}, or be left out; nothing else is supported',
            FIELD,
        )
    return asked is not None


def _reason(message: str) -> str:
    """The library's error message, without any text from the schema."""
    said, _, rest = (message.splitlines() or [""])[0].partition(":")
    if said == "Unimplemented keys":
        names = [name for name in re.findall(r'"([^"]*)"', rest) if name in _KEYWORDS]
        return f"{', '.join(names) or 'one of its keywords'} is not supported"
    if said.startswith("oneOf"):
        return "oneOf is supported only if types or constants make its alternatives mutually exclusive"
    if said.startswith(("NoExtension", "Unsatisfiable schema")):
        return "no answer can satisfy it"
    said = re.sub(r"""'[^']*'|"[^"]*"|/[^/]*/""", "...", said)
    return said if re.fullmatch(r"[A-Za-z .()-]{1,100}", said) else "llguidance rejects it"
