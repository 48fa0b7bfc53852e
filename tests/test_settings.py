from pathlib import Path

import pytest

from panacea.api_key import ApiKey
from panacea.errors import ConfigError
from panacea.preference import Dimension, PreferenceSpace
from panacea.serving import is_open, make_room_for
from panacea_commands.option_values import (
    allowed_hosts,
    cors_origins,
    read_config_file,
    with_presets,
)

SPACE = PreferenceSpace((Dimension("a"), Dimension("b")), (1.0, 1.0), presets={"old": (1.0, 0.0)})


def test_presets_are_added_and_normalised() -> None:
    space = with_presets(SPACE, ["new=3,1", "old=0,2"])
    assert space is not None
    assert space.presets == {"old": (0.0, 1.0), "new": (0.75, 0.25)}
    assert with_presets(SPACE, []) is SPACE
    assert with_presets(None, []) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("new", "write NAME=w,w,w"),
        ("new=", "must be numbers"),
        ("new=1;2", "must be numbers"),
        ("new=1,2,3", "3 weights instead of 2"),
        ("new=0,0", "no weight above 0"),
        ("new=nan,1", "between 0 and 1e6"),
        ("new=-1,1", "between 0 and 1e6"),
        ("base=1,1", "cannot be called 'base'"),
        ("=1,1", "preset name ''"),
        ("a:b=1,1", "preset name 'a:b'"),
    ],
)
def test_a_wrong_preset_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_presets(SPACE, [text])


def test_a_preset_needs_an_adapter() -> None:
    with pytest.raises(ConfigError, match="needs an adapter"):
        with_presets(None, ["new=1,1"])


def test_hosts_default_to_loopback_names_only_on_a_loopback_address() -> None:
    assert allowed_hosts("127.0.0.1", []) == ("localhost", "127.0.0.1", "[::1]")
    assert allowed_hosts("0.0.0.0", []) == ("*",)  # noqa: S104 (a value to look at)
    assert allowed_hosts("0.0.0.0", ["panacea.example"]) == ("panacea.example",)  # noqa: S104


def test_a_config_file_names_options_with_dash_or_underscore(tmp_path: Path) -> None:
    path = tmp_path / "panacea.toml"
    path.write_text('max-batch = 3\nmax_context = 99\npreset = ["x=1,0"]\n', "utf-8")
    options = read_config_file(path, {"max_batch", "max_context", "preset"})
    assert options == {"max_batch": 3, "max_context": 99, "preset": ["x=1,0"]}
    with pytest.raises(ConfigError, match="unknown option 'max_context'; known are max_batch, preset"):
        read_config_file(path, {"max_batch", "preset"})
    path.write_text("max_batch = ", "utf-8")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config_file(path, {"max_batch"})


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", False), ("127.1.2.3", False), ("localhost", False), ("::1", False)]
    + [(host, True) for host in ("0.0.0.0", "::", "192.168.1.2", "panacea.example")],  # noqa: S104
)
def test_a_server_without_keys_is_open_where_others_can_reach_it(host: str, expected: bool) -> None:
    assert is_open(host, ()) is expected
    assert not is_open(host, (ApiKey.of("a-key-of-some-length"),))


def test_origins_are_what_a_browser_sends() -> None:
    good = ("https://app.example", "http://localhost:3000", "http://[::1]:8080", "*")
    assert cors_origins(good) == good
    for bad in (
        "app.example",
        "https://app.example/",
        "https://App.example",
        "null",
        "",
        "https://*.example",
        "file://",
    ):
        with pytest.raises(ConfigError, match="--cors-origin"):
            cors_origins([bad])


def test_room_for_connections_is_made_where_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [(256, 4096)]
    monkeypatch.setattr("resource.getrlimit", lambda _kind: limits[-1])
    monkeypatch.setattr("resource.setrlimit", lambda _kind, limit: limits.append(limit))
    make_room_for(10)
    assert limits == [(256, 4096)]
    make_room_for(1000)
    assert limits[-1] == (1200, 4096)
    with pytest.raises(ConfigError, match="--max-connections 5000 needs 5200 open files, but ulimit -n allows 4096"):
        make_room_for(5000)
