"""JSON schemas that answers must follow; llguidance (https://github.com/guidance-ai/llguidance) says what may come.

A grammar is compiled beside the engine's steps, in a thread without the interpreter's lock, and read in between them:
the mask of a next token takes 3 to 100 us, and at most a few ms, because a step's work is limited.
"""

import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from panacea.errors import RequestError, first_line

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer
    from llguidance._lib import JsonCompileOptions

logger = logging.getLogger(__name__)

FIELD = "response_format"
"""The request's field that errors name."""

_CACHED = 64
"""Compiled grammars that are kept for the next request: a copy takes half a microsecond."""

STEP_LEXER_FUEL = 200_000
"""What following regular expressions may cost at one token: 10 ms here. The worst schemas that were tried took that."""

_STACK_BYTES = 64 << 20
"""Of the thread that compiles: a schema whose definitions lead one to the next makes the compiler go as deep. Four
times as much as `grammar_check` finds enough, and only what is used takes memory."""

_OPTIONS: "JsonCompileOptions" = {
    "whitespace_flexible": True,
    # As models are used to write JSON, on one line or indented; but not without end, which some do not find.
    "whitespace_pattern": r" |\n[ \t]{0,64}",
    "item_separator": ",",
    "key_separator": ":",
    "coerce_one_of": False,  # would take oneOf for anyOf
    "lenient": False,  # would pass over what is not implemented
}

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
"""Those that a message may name; it repeats nothing else of a schema."""


class Grammar:
    """One answer's place in its grammar."""

    def __init__(self, matcher: "LLMatcher") -> None:
        self._matcher = matcher

    def mask(self) -> bytes:
        """A bit for each token, the lowest of each byte first: 1 where it may come next. At the end that is the end of
        sequence alone, and so it is after a failure."""
        return self._matcher.compute_bitmask()

    def accept(self, token_id: int) -> None:
        """This token, which the last mask allowed, is part of the answer now."""
        self._matcher.consume_token(token_id)

    @property
    def has_ended(self) -> bool:
        """Whether nothing more may come."""
        return self._matcher.is_stopped()

    @property
    def has_failed(self) -> bool:
        """Whether following it took more work than a step may."""
        return self._matcher.is_error()


class Grammars:
    """Compiles grammars for one vocabulary."""

    def __init__(self, tokenizer: "LLTokenizer") -> None:
        self._tokenizer = tokenizer
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="grammar")
        self._compiled: OrderedDict[str, Future[LLMatcher]] = OrderedDict()

    @classmethod
    def load(cls, folder: Path, vocab_size: int, eos_token_ids: Sequence[int]) -> "Grammars | None":
        """For the tokenizer in a model's folder. None, and a line in the log, where that or llguidance is missing."""
        file = folder / "tokenizer.json"
        try:
            from llguidance import LLTokenizer  # noqa: PLC0415 (the engine also runs without)

            return cls(LLTokenizer(file.read_text("utf-8"), n_vocab=vocab_size, eos_token=list(eos_token_ids)))
        except (ImportError, OSError, ValueError) as error:
            logger.info("no structured output: %s", first_line(error))
            return None

    def begin(self, schema: str) -> "Future[LLMatcher]":
        """Compiles it in the background. The result is for `start`; a schema that cannot be followed raises
        `RequestError` there."""
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
        """The beginning of an answer. Raises `RequestError`."""
        try:
            return Grammar(compiled.result().deep_copy())
        except RequestError:
            raise
        except BaseException as error:  # what a library in Rust panics with is no `Exception`
            raise RequestError(f"{FIELD}: the JSON schema cannot be followed", FIELD) from error


def compile_schema(tokenizer: "LLTokenizer", schema: str) -> "LLMatcher":
    """Raises `RequestError` for a schema that no answer can follow, or not by this library, or not within its limits.

    These limit a grammar's size, but not the time for every regular expression: who cannot trust the schema runs
    `grammar_check` before.
    """
    from llguidance import LLMatcher, LLParserLimits  # noqa: PLC0415 (as above)

    # A large regular expression is followed as it is needed, so that the time to compile does not depend on how many
    # tokens there are.
    limits = LLParserLimits(step_lexer_fuel=STEP_LEXER_FUEL, precompute_large_lexemes=False, verbose_errors=False)
    try:
        grammar = LLMatcher.grammar_from_json_schema(schema, overrides=_OPTIONS)
    except ValueError as error:
        raise RequestError(f"{FIELD}: this is not a JSON schema", FIELD) from error
    matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=limits)
    mask = matcher.compute_bitmask()
    if matcher.is_error() or matcher.is_stopped() or not any(mask):
        raise RequestError(f"{FIELD}: the JSON schema cannot be followed: {_reason(matcher.get_error())}", FIELD)
    return matcher


def _reason(message: str) -> str:
    """What the library says, without any words of the schema's."""
    said, _, rest = (message.splitlines() or [""])[0].partition(":")
    if said == "Unimplemented keys":
        names = [name for name in re.findall(r'"([^"]*)"', rest) if name in _KEYWORDS]
        return f"{', '.join(names) or 'one of its keywords'} is not supported"
    if said.startswith("oneOf"):
        return "oneOf is supported where its alternatives exclude each other by their types or constants"
    if said.startswith("NoExtension"):
        return "no answer fits it"
    said = re.sub(r"""'[^']*'|"[^"]*"|/[^/]*/""", "...", said)
    return said if re.fullmatch(r"[A-Za-z .()-]{1,100}", said) else "llguidance refuses it"
