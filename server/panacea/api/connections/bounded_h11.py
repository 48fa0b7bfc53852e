"""h11's connection, with a limit on the number of chunks in a body."""

import h11

_FREE_CHUNKS = 250
_LEAST_MEAN_BYTES = 128
"""Least mean size of the chunks beyond the free ones. h11 takes 12 us for a chunk, and a client that sends one byte in
each could keep the event loop busy with 5 MB/s: three of them gave /health a median of 5 s."""


class TooManyChunksError(h11.RemoteProtocolError):
    """The body comes in more chunks than its size explains."""


class BoundedH11(h11.Connection):
    """h11's connection. Raises `TooManyChunksError` for a body in many tiny chunks."""

    _chunks = 0
    _chunk_bytes = 0

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        event = super().next_event()
        match event:
            case h11.Request():
                self._chunks = self._chunk_bytes = 0
            case h11.Data(data=data, chunk_start=starts):
                self._chunks += starts
                self._chunk_bytes += len(data)
                if self._chunks > _FREE_CHUNKS and self._chunk_bytes < self._chunks * _LEAST_MEAN_BYTES:
                    raise TooManyChunksError(
                        f"the body's chunks have less than {_LEAST_MEAN_BYTES} bytes on average; send larger ones",
                        error_status_hint=413,
                    )
            case _:
                pass
        return event
