"""Decodes server-sent events, as defined in https://html.spec.whatwg.org/multipage/server-sent-events.html."""

from collections.abc import Iterator
from dataclasses import dataclass

MAX_EVENT_BYTES = 16 * 2**20
"""Maximum size of an event: a hundred times what servers send, and small enough for the memory."""

_BOM = b"\xef\xbb\xbf"


class EventTooLargeError(ValueError):
    """An event is larger than `MAX_EVENT_BYTES`."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `name` is "message" if the server gave no name."""

    name: str
    data: str


class EventDecoder:
    """Decodes bytes in pieces of any size into complete events.

    A blank line completes an event, so a truncated stream gives no partial events.
    """

    def __init__(self) -> None:
        self._line: list[bytes] = []
        """Pieces of the unfinished line."""
        self._held_bytes = 0
        """Size of the unfinished event so far."""
        self._name = ""
        self._data: list[bytes] = []
        self._after_carriage_return = False
        self._at_begin = True

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that `chunk` completes. Raises `EventTooLargeError`."""
        for piece in chunk.splitlines(keepends=True):
            # A line feed after a carriage return belongs to the same line end, even if it is in the next chunk.
            if self._after_carriage_return and piece == b"\n":
                self._after_carriage_return = False
                continue
            self._after_carriage_return = piece.endswith(b"\r")
            self._held_bytes += len(piece)
            if self._held_bytes > MAX_EVENT_BYTES:
                raise EventTooLargeError(f"an event is larger than {MAX_EVENT_BYTES} bytes")
            self._line.append(piece)
            if piece.endswith((b"\n", b"\r")):
                yield from self._end_line()

    def _end_line(self) -> Iterator[Event]:
        line = b"".join(self._line)
        self._line.clear()
        self._held_bytes -= len(line)
        line = line.rstrip(b"\r\n")
        if self._at_begin:
            line = line.removeprefix(_BOM)
            self._at_begin = False
        if not line:
            yield from self._end_event()
            return
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
            self._held_bytes += len(value) + 1
        elif field == b"event":
            self._name = value.decode(errors="replace")
        # Other lines are comments, or fields for browsers that reconnect.

    def _end_event(self) -> Iterator[Event]:
        name, data = self._name or "message", self._data
        self._name, self._data, self._held_bytes = "", [], 0
        if data:
            yield Event(name, b"\n".join(data).decode(errors="replace"))
