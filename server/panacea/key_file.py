"""The file with the API keys: one key on each line, or a table of TOML for each key if its name ends in .toml.

    [[key]]
    name = "alice"                  # letters, digits, "_", "." and "-"
    sha256 = "9f86d081884c7d65..."  # or key = "...": then the file holds a secret
    scopes = ["infer", "metrics"]   # default: infer
    expires = 2027-01-31T00:00:00Z
    requests_per_minute = 60        # default: --requests-per-minute; "unlimited" for none
    tokens_per_minute = 100_000

Errors name the file and the line. They never hold what stands there, because it may be a key.
"""

import math
import re
import stat
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any, get_args

from panacea.api_key import ApiKey, KeyScope, key_digest
from panacea.errors import ConfigError

LEAST_KEY_CHARS = 16
"""Sixteen random letters and digits have 95 bits. A word or a date has far fewer."""

_SCOPES: tuple[KeyScope, ...] = get_args(KeyScope)
_FIELDS = ("name", "key", "sha256", "scopes", "expires", "requests_per_minute", "tokens_per_minute")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_TABLE = re.compile(r"\s*\[\[\s*key\s*\]\]")
_PLACE = re.compile(r"at line (\d+)")
_UNLIMITED = "unlimited"


@dataclass(frozen=True)
class KeyFile:
    """The content of a key file."""

    keys: tuple[ApiKey, ...]
    is_exposed: bool
    """Whether it holds a key itself, and every user of the machine may read it."""


class _KeyProblemError(Exception):
    """What is wrong with one key."""


def read_key_file(path: Path) -> KeyFile:
    """The keys of a file: at least one, and none twice. Raises `ConfigError` with a message of one line."""
    try:
        mode = path.stat().st_mode
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"--api-key-file {path} cannot be read: {error.strerror or 'error'}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"--api-key-file {path} cannot be read: it is not UTF-8 text") from None
    is_toml = path.suffix == ".toml"
    tables = _toml_tables(path, text) if is_toml else _line_tables(text)
    keys, holds_secret = _checked(path, tables, is_toml=is_toml)
    if not keys:
        raise ConfigError(f"--api-key-file {path} holds no key: write one per line, or leave the option out")
    return KeyFile(keys, holds_secret and stat.S_ISREG(mode) and bool(mode & stat.S_IROTH))


def _checked(
    path: Path, tables: Iterable[tuple[int, Mapping[str, Any]]], *, is_toml: bool
) -> tuple[tuple[ApiKey, ...], bool]:
    keys: list[ApiKey] = []
    line_of: dict[bytes | str, int] = {}
    holds_secret = False
    for line, table in tables:
        try:
            key = _named_key(table) if is_toml else _bare_key(table["key"])
            for what, value in (("key", key.digest), ("name", key.name)):
                if value is not None and line_of.setdefault(value, line) != line:
                    raise _KeyProblemError(f"its {what} is the one of line {line_of[value]}; use each {what} once")
        except _KeyProblemError as problem:
            raise ConfigError(f"--api-key-file {path}, line {line}: {problem}") from None
        keys.append(key)
        holds_secret = holds_secret or "key" in table
    return tuple(keys), holds_secret


def _line_tables(text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Each line with a key: its number and the key."""
    for number, line in enumerate(text.splitlines(), 1):
        content = line.strip()
        if content and not content.startswith("#"):
            yield number, {"key": content}


def _toml_tables(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Each table with the number of its first line."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = _PLACE.search(str(error))
        where = f", line {place[1]}" if place else ""
        raise ConfigError(f"--api-key-file {path}{where}: this is not TOML") from None
    tables: Any = content.pop("key", [])
    lines = [number for number, line in enumerate(text.split("\n"), 1) if _TABLE.match(line)]
    if content or not isinstance(tables, list) or len(tables) != len(lines):
        raise ConfigError(f"--api-key-file {path}: write one [[key]] table for each key, and nothing else")
    yield from zip(lines, tables, strict=True)


def _bare_key(text: str) -> ApiKey:
    try:
        return ApiKey(_digest_of(text))
    except _KeyProblemError as problem:
        raise _KeyProblemError(f"{problem} (a file of [[key]] tables has a name that ends in .toml)") from None


def _named_key(table: Mapping[str, Any]) -> ApiKey:
    if not table.keys() <= set(_FIELDS):
        raise _KeyProblemError(f"it has an unknown field; known are {', '.join(_FIELDS)}")
    name = table.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _KeyProblemError('name must be 1 to 64 letters, digits, "_", "." or "-"')
    return ApiKey(
        _named_digest(table),
        name,
        _scopes(table.get("scopes", ["infer"])),
        _expires_at(table.get("expires")),
        _rate("requests_per_minute", table.get("requests_per_minute")),
        _rate("tokens_per_minute", table.get("tokens_per_minute")),
    )


def _named_digest(table: Mapping[str, Any]) -> bytes:
    if ("key" in table) == ("sha256" in table):
        raise _KeyProblemError("write either key or sha256")
    text: Any = table.get("key", table.get("sha256"))
    if "key" in table:
        return _digest_of(text)
    if not isinstance(text, str) or not _SHA256.fullmatch(text):
        raise _KeyProblemError("sha256 must be the 64 hexadecimal digits of the key's SHA-256")
    return bytes.fromhex(text)


def _digest_of(key: Any) -> bytes:
    if not isinstance(key, str) or not key.isascii() or not key.isprintable() or " " in key:
        raise _KeyProblemError("a key is printable ASCII without spaces")
    if len(key) < LEAST_KEY_CHARS:
        problem = f"the key has fewer than {LEAST_KEY_CHARS} characters; make one with: openssl rand -hex 32"
        raise _KeyProblemError(problem)
    return key_digest(key.encode())


def _scopes(value: Any) -> frozenset[KeyScope]:
    if not isinstance(value, list) or not value or not all(scope in _SCOPES for scope in value):
        raise _KeyProblemError(f"scopes must be a list of {', '.join(_SCOPES)}")
    return frozenset(value)


def _expires_at(value: Any) -> float:
    match value:
        case None:
            return math.inf
        case datetime() if value.tzinfo is not None:
            return value.timestamp()
        case date() if not isinstance(value, datetime):
            return datetime.combine(value, time.min, UTC).timestamp()
        case _:
            raise _KeyProblemError("expires must be a date, or a time with an offset, like 2027-01-31T00:00:00Z")


def _rate(field: str, value: Any) -> float | None:
    if value is None:
        return None
    if value == _UNLIMITED:
        return math.inf
    if type(value) is not int or value < 1:
        raise _KeyProblemError(f'{field} must be a whole number of at least 1, or "{_UNLIMITED}"')
    return value
