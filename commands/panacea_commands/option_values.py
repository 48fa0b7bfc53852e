"""From an option's text to a checked value: presets, weights, numbers, key files, configuration files. No torch."""

import re
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from panacea.config import ServerConfig
from panacea.errors import ConfigError, PreferenceError
from panacea.preference import PreferenceSpace

_ORIGIN = re.compile(r"https?://[a-z0-9_.\[\]:-]+")


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
        raise ConfigError("--preset needs an adapter: a bare base model has no preferences. Give --adapter too")
    try:
        return replace(space, presets={**space.presets, **{n: space.resolve(w) for n, w in named.items()}})
    except PreferenceError as error:
        raise ConfigError(f"--preset: {error}") from None


def read_weights(option: str, text: str) -> dict[str, float] | list[float]:
    """The weights of `text`, `name=w,name=w` or `w,w`, for `PreferenceSpace.resolve`. Raises `ConfigError`."""
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
            raise ConfigError(f"{option} {text}: {name.strip()} is given twice")
    if named and listed:
        raise ConfigError(f"{option} {text}: name every weight or none")
    return named or listed


def read_numbers(option: str, text: str, exactly: int | None = None) -> tuple[int, ...]:
    """The whole numbers of `text`, like 1,8,32; `exactly` so many of them if given. Raises `ConfigError`."""
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or len(numbers) != (exactly or len(numbers)):
        raise ConfigError(f"{option} {text!r}: write {exactly or 'whole'} numbers with commas between them, like 1,8")
    return numbers


def read_point(option: str, text: str | None) -> tuple[float, ...] | None:
    """The numbers of `text`, one per dimension, like 0.2,0.8; None for None. Raises `ConfigError`."""
    if text is None:
        return None
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError:
        raise ConfigError(f"{option} {text}: write one number per dimension, with commas between them") from None


def check_writable(option: str, file: Path | None) -> None:
    """Raises `ConfigError` where no file of that name can be written. Call it before long work, not after."""
    if file is not None and (file.is_dir() or not file.resolve().parent.is_dir()):
        reason = "it is a folder" if file.is_dir() else "its folder does not exist"
        raise ConfigError(f"{option} {file} cannot be written: {reason}")


def read_first_key(path: Path | None) -> str | None:
    """The first key of a file with one key on each line, to be sent to a server. Raises `ConfigError`."""
    if path is None:
        return None
    try:
        lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--api-key-file {path} cannot be read: {error}") from None
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys or " " in keys[0] or not keys[0].isascii() or not keys[0].isprintable():
        raise ConfigError(f"--api-key-file {path}: its first line must be the key that is sent")
    return keys[0]


def allowed_hosts(host: str, names: Collection[str]) -> tuple[str, ...]:
    """The Host headers that are answered. Without names: loopback names on a loopback address, all elsewhere."""
    if names:
        return tuple(names)
    return ServerConfig.allowed_hosts if host in ("localhost", "127.0.0.1", "::1") else ("*",)


def cors_origins(origins: Collection[str]) -> tuple[str, ...]:
    """Origins as browsers write them: scheme, host, and a port unless it is the scheme's own. Raises `ConfigError`."""
    for origin in origins:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise ConfigError(f"--cors-origin {origin}: write https://app.example, with a port if it has one, or *")
    return tuple(origins)


def trusted_proxies(proxies: Collection[str]) -> tuple[str, ...]:
    """Addresses and networks of proxies. Raises `ConfigError` for anything else."""
    for proxy in proxies:
        try:
            ip_network(proxy, strict=False)
        except ValueError:
            raise ConfigError(f"--trusted-proxy {proxy}: write an address or a network, such as 10.0.0.0/8") from None
    return tuple(proxies)


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
