"""Replies of an interrupted evaluation, in a file, so that the next run does not generate them again."""

import struct
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from panacea.digest import Digest
from panacea.engine.prefix_keys import ModelIdentity, root_key
from panacea.engine.request import Request
from panacea.errors import ConfigError
from panacea.model.loader import LoadedModel


@dataclass(frozen=True)
class KeptReply:
    """One answer, without the token that ended it."""

    token_ids: list[int]
    cut_off: bool
    """Whether `max_tokens` were generated without an end among them."""


class _Line(msgspec.Struct, frozen=True):
    key: str
    token_ids: list[int]
    cut_off: bool


class KeptReplies:
    """Replies by their keys, see `reply_keys`. With a file, each reply is written to it as soon as it is complete."""

    def __init__(self, file: Path | None = None) -> None:
        """`file` need not exist. Raises `ConfigError` if it exists and cannot be read."""
        self._file = file
        try:
            self._replies = {line.key: KeptReply(line.token_ids, line.cut_off) for line in _lines(file)}
        except OSError as error:
            raise ConfigError(f"{file} cannot be read: {error.strerror}") from None

    def __len__(self) -> int:
        return len(self._replies)

    def __contains__(self, key: str) -> bool:
        return key in self._replies

    def __getitem__(self, key: str) -> KeptReply:
        return self._replies[key]

    def keep(self, key: str, reply: KeptReply) -> None:
        """Raises `ConfigError` where the file cannot be written."""
        self._replies[key] = reply
        if self._file is None:
            return
        line = msgspec.json.encode(_Line(key, reply.token_ids, reply.cut_off))
        try:
            with self._file.open("ab") as file:
                file.write(b"\n" + line)  # a line break before it, so that one that was cut off spoils no other
        except OSError as error:
            raise ConfigError(f"{self._file} cannot be written: {error.strerror}") from None


@contextmanager
def kept_replies(file: Path, say: Callable[[str], None]) -> Generator[KeptReplies]:
    """The replies in `file`, which is deleted if the block succeeds. Else `say` gets a line that says why it stays."""
    kept = KeptReplies(file)
    if kept:
        say(f"{file} has {len(kept):,} answers of an interrupted run: they are not generated again")
    try:
        yield kept
    except BaseException:
        if kept:
            say(f"{file} keeps {len(kept):,} answers: the same command generates only the others")
        raise
    file.unlink(missing_ok=True)


def reply_keys(model: LoadedModel, requests: Sequence[Request]) -> list[str]:
    """For each request a digest of everything its reply depends on: model content, device, prompt and sampling."""
    adapter = model.adapter.content_digest() if model.adapter else None
    identity = ModelIdentity(model.base_identity, adapter)
    device = model.device.type.encode()
    ends = repr(sorted(model.eos_token_ids)).encode()
    return [
        Digest(b"panacea reply")
        .add(root_key(identity, request.preference, request.cache_salt))
        .add(struct.pack(f"<{len(request.prompt_ids)}I", *request.prompt_ids))
        .add(repr(request.params).encode(), ends, device)
        .value.hex()
        for request in requests
    ]


def _lines(file: Path | None) -> Iterator[_Line]:
    """The complete lines: a killed run may have left half of one."""
    if file is None or not file.exists():
        return
    decoder = msgspec.json.Decoder(_Line)
    for line in file.read_bytes().split(b"\n"):
        try:
            yield decoder.decode(line)
        except msgspec.DecodeError:
            continue
