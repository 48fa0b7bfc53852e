"""What `panacea serve` was told, from text to checked values: presets, key files, configuration files. No torch."""

import re
import resource
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from panacea.errors import ConfigError, PreferenceError
from panacea.preference import PreferenceSpace

_ORIGIN = re.compile(r"https?://[a-z0-9_.\[\]:-]+")
_OTHER_FILES = 200
"""Connections that are told to go, the engine, libraries' files, and some to spare."""

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")


def with_presets(space: PreferenceSpace | None, presets: Iterable[str]) -> PreferenceSpace | None:
    """`space` with the presets of the command line (`NAME=w,w,w`) added. Raises `ConfigError`."""
    named: dict[str, list[float]] = {}
    for text in presets:
        name, equals, weights = text.partition("=")
        if not equals:
            raise ConfigError(f"--preset {text}: write NAME=w,w,w with one weight per dimension")
        try:
            named[name] = [float(weight) for weight in weights.split(",")]
        except ValueError:
            raise ConfigError(f"--preset {text}: the weights must be numbers with commas between them") from None
    if not named:
        return space
    if space is None:
        raise ConfigError("--preset needs an adapter: a bare base model has no preferences")
    try:
        return replace(space, presets={**space.presets, **{n: space.resolve(w) for n, w in named.items()}})
    except PreferenceError as error:
        raise ConfigError(f"--preset: {error}") from None


def read_weights(option: str, text: str) -> dict[str, float] | list[float]:
    """What `option` was given, `name=w,name=w` or `w,w`, for `PreferenceSpace.resolve`. Raises `ConfigError`."""
    named: dict[str, float] = {}
    listed: list[float] = []
    for part in text.split(","):
        name, equals, number = part.rpartition("=")
        try:
            weight = float(number)
        except ValueError:
            raise ConfigError(f"{option} {text}: write name=weight,name=weight or weight,weight") from None
        if equals and name.strip() not in named:
            named[name.strip()] = weight
        elif not equals:
            listed.append(weight)
        else:
            raise ConfigError(f"{option} {text}: {name.strip()} is there twice")
    if named and listed:
        raise ConfigError(f"{option} {text}: name all weights or none")
    return named or listed


def check_writable(option: str, file: Path | None) -> None:
    """Before minutes of work, not after. Raises `ConfigError` where no file of that name could be written."""
    if file is not None and (file.is_dir() or not file.resolve().parent.is_dir()):
        reason = "it is a folder" if file.is_dir() else "its folder does not exist"
        raise ConfigError(f"{option} {file} cannot be written: {reason}")


def read_api_keys(path: Path | None) -> tuple[str, ...]:
    """The keys of a file, one per line; empty lines and lines that start with # do not count. Raises `ConfigError`."""
    if path is None:
        return ()
    try:
        lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--api-key-file {path} cannot be read: {error}") from None
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if not keys:
        raise ConfigError(f"--api-key-file {path} holds no key; without the option the server is open")
    if any(not key.isascii() or not key.isprintable() or " " in key for key in keys):
        raise ConfigError(f"--api-key-file {path}: keys are printable ASCII without spaces, one per line")
    return keys


def allowed_hosts(host: str, names: Collection[str]) -> tuple[str, ...]:
    """The Host headers to answer: the ones named; else loopback names on a loopback address, and all elsewhere."""
    if names:
        return tuple(names)
    return LOOPBACK_HOSTS if host in ("localhost", "127.0.0.1", "::1") else ("*",)


def is_open(host: str, api_keys: Collection[str]) -> bool:
    """Whether others than this machine may reach a server at this address, and ask without a key."""
    try:
        is_local = ip_address(host).is_loopback
    except ValueError:
        is_local = host == "localhost"
    return not is_local and not api_keys


def cors_origins(origins: Collection[str]) -> tuple[str, ...]:
    """Origins as browsers write them: scheme, host, and a port unless it is the scheme's own. Raises `ConfigError`."""
    for origin in origins:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise ConfigError(f"--cors-origin {origin}: write https://app.example, with a port if it has one, or *")
    return tuple(origins)


def make_room_for(connections: int) -> None:
    """Lets this process open as many files as so many connections take. Raises `ConfigError` if it may not."""
    needed = connections + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ConfigError(f"--max-connections {connections} needs {needed} open files, and ulimit -n allows {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def read_config_file(path: Path, known: Collection[str]) -> Mapping[str, Any]:
    """The options of a TOML file, under the flags' names with - or _. Raises `ConfigError` for unknown ones."""
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"--config {path} cannot be read: {error}") from None
    options = {name.replace("-", "_"): value for name, value in content.items()}
    for name in options:
        if name not in known:
            listed = ", ".join(sorted(known))
            raise ConfigError(f"--config {path}: unknown option {name!r}; known are {listed}")
    return options
