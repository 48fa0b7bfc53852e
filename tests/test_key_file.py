"""The key file: both of its forms, what is refused, and that no message holds a key."""

import math
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest

from panacea.api_key import DEFAULT_SCOPES, ApiKey
from panacea.config import ServerConfig
from panacea.errors import ConfigError
from panacea.key_file import LEAST_KEY_CHARS, read_key_file
from panacea_commands.option_values import read_first_key

ONE, TWO = "sk-one-0123456789", "sk-two-0123456789"


def written(folder: Path, text: str | bytes, name: str = "keys") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(0o600)
    return path


def test_keys_are_read_line_by_line(tmp_path: Path) -> None:
    file = read_key_file(written(tmp_path, f"# for the staging system\n\n  {ONE}  \r\n{TWO}\n"))
    assert file.keys == (ApiKey.of(ONE), ApiKey.of(TWO))
    assert file.keys[0].digest == sha256(ONE.encode()).digest()
    assert (file.keys[0].name, file.keys[0].scopes, file.keys[0].expires_at) == (None, DEFAULT_SCOPES, math.inf)


TABLES = f"""
# the team
[[key]]
name = "alice"
sha256 = "{sha256(ONE.encode()).hexdigest().upper()}"
scopes = ["infer", "admin"]
expires = 2027-01-31T01:00:00+01:00
requests_per_minute = 60
tokens_per_minute = "unlimited"

  [[ key ]]
name = "bob"
key = "{TWO}"
expires = 2027-02-01
"""


def test_tables_give_names_scopes_ends_and_rates(tmp_path: Path) -> None:
    alice, bob = read_key_file(written(tmp_path, TABLES, "keys.toml")).keys
    end = datetime(2027, 1, 31, tzinfo=UTC).timestamp()
    assert alice == ApiKey(ApiKey.of(ONE).digest, "alice", frozenset(("infer", "admin")), end, 60, math.inf)
    end = datetime(2027, 2, 1, tzinfo=UTC).timestamp()
    assert bob == ApiKey(ApiKey.of(TWO).digest, "bob", frozenset(("infer",)), end)


def table(*lines: str) -> str:
    return "\n".join(("[[key]]", *lines, ""))


NAME, KEY = 'name = "a"', f'key = "{ONE}"'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no key"),
        ("# only this\n", "holds no key"),
        ("two words of a key\n", "line 1: a key is printable ASCII"),
        (f"{ONE}\nschlüssel-schlüssel\n", "line 2: a key is printable ASCII"),
        (b"\xff\n", "cannot be read: it is not UTF-8"),
        (f"{ONE}\n\n{ONE}\n", "line 3: its key is the one of line 1"),
        (f"{'s' * (LEAST_KEY_CHARS - 1)}\n", f"line 1: the key has fewer than {LEAST_KEY_CHARS} characters"),
        (table(NAME, KEY), "line 1: the key has fewer than .* ends in .toml"),
    ],
)
def test_lines_that_are_no_keys_are_refused(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        read_key_file(written(tmp_path, content))
    assert_tells_no_key(refused.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no key"),
        (f"{ONE}\n", "line 1: this is not TOML"),
        (f'[[key]]\nname = "{ONE}\n', "line 2: this is not TOML"),
        (f'key = [{{name = "a", key = "{ONE}"}}]', r"write one \[\[key\]\] table for each key"),
        (f'title = "{ONE}"\n' + table(NAME, KEY), r"write one \[\[key\]\] table for each key"),
        (table(KEY), "line 1: name must be"),
        (table('name = "a b"', KEY), "line 1: name must be"),
        (table(f'name = "{"a" * 65}"', KEY), "line 1: name must be"),
        (table(NAME), "line 1: write either key or sha256"),
        (table(NAME, KEY, f'sha256 = "{"0" * 64}"'), "line 1: write either key or sha256"),
        (table(NAME, 'sha256 = "12"'), "line 1: sha256 must be the 64"),
        (table(NAME, 'key = "short"'), "line 1: the key has fewer than"),
        (table(NAME, "key = 1234567890123456789"), "line 1: a key is printable"),
        (table(NAME, KEY, f'{ONE} = "x"'), "line 1: it has an unknown field; known are name, key"),
        (table(NAME, KEY, "scopes = []"), "line 1: scopes must be a list of infer, metrics, admin"),
        (table(NAME, KEY, 'scopes = ["root"]'), "line 1: scopes must be"),
        (table(NAME, KEY, "scopes = [{}]"), "line 1: scopes must be"),
        (table(NAME, KEY, 'scopes = "infer"'), "line 1: scopes must be"),
        (table(NAME, KEY, "expires = 2027-01-31T00:00:00"), "line 1: expires must be"),
        (table(NAME, KEY, 'expires = "tomorrow"'), "line 1: expires must be"),
        (table(NAME, KEY, "requests_per_minute = 0"), "line 1: requests_per_minute must be"),
        (table(NAME, KEY, "tokens_per_minute = true"), "line 1: tokens_per_minute must be"),
        (table(NAME, KEY, "tokens_per_minute = 1.5"), "line 1: tokens_per_minute must be"),
        (table(NAME, KEY) + table(NAME, f'key = "{TWO}"'), "line 4: its name is the one of line 1"),
        (table(NAME, KEY) + table('name = "b"', KEY), "line 4: its key is the one of line 1"),
    ],
)
def test_tables_that_are_no_keys_are_refused(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        read_key_file(written(tmp_path, content, "keys.toml"))
    assert_tells_no_key(refused.value)


def assert_tells_no_key(error: ConfigError) -> None:
    assert "\n" not in str(error)
    for secret in (ONE, TWO, "short", "two words", "schl"):
        assert secret not in str(error)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_key_file(tmp_path / "absent")


def test_a_file_of_secrets_that_all_may_read_is_exposed_and_one_of_digests_is_not(tmp_path: Path) -> None:
    for content, name, is_exposed in (
        (f"{ONE}\n", "keys", True),
        (table(NAME, KEY), "keys.toml", True),
        (table(NAME, f'sha256 = "{"0" * 64}"'), "keys.toml", False),
    ):
        path = written(tmp_path, content, name)
        assert not read_key_file(path).is_exposed
        path.chmod(0o644)
        assert read_key_file(path).is_exposed == is_exposed


def test_a_server_that_watches_a_file_must_have_its_keys() -> None:
    with pytest.raises(ConfigError, match="api_key_file needs the keys"):
        ServerConfig("x", api_key_file=Path("keys"))


def test_a_bench_sends_the_first_key_of_a_file(tmp_path: Path) -> None:
    assert read_first_key(None) is None
    assert read_first_key(written(tmp_path, f"# mine\n{ONE}\n{TWO}\n")) == ONE
    for content in ("", "# only this\n", "two words\n"):
        with pytest.raises(ConfigError, match="its first line must be the key"):
            read_first_key(written(tmp_path, content))
