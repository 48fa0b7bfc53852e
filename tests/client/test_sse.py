"""The decoder of server-sent events: what the standard says, however the bytes are cut."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panacea_client.sse import MAX_EVENT_BYTES, Event, EventDecoder, EventTooLargeError


def decode(*chunks: bytes) -> list[Event]:
    decoder = EventDecoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    return [
        data[begin:end] for begin, end in pairwise([0, *sorted(place % (len(data) + 1) for place in places), len(data)])
    ]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize(
    ("lines", "events"),
    [
        ([b"data: a", b""], [Event("message", "a")]),
        ([b"data:a", b""], [Event("message", "a")]),
        ([b"data:  a ", b""], [Event("message", " a ")]),
        ([b"data: a", b"data:", b"data: b", b""], [Event("message", "a\n\nb")]),
        ([b"data", b""], [Event("message", "")]),
        ([b"event: error", b"data: a: b", b"", b"data: c", b""], [Event("error", "a: b"), Event("message", "c")]),
        ([b": a comment", b":", b"data: a", b": between", b""], [Event("message", "a")]),
        ([b"id: 3", b"retry: 5", b"data: a", b"unknown: x", b""], [Event("message", "a")]),
        ([b"event: nothing", b"", b"", b"data: a", b""], [Event("message", "a")]),
        ([b"Data: a", b" data: b", b""], []),
        ([b"data: cut off"], []),
        ([b"data: cut", b"data: off"], []),
        (["data: é漢🙂".encode(), b""], [Event("message", "é漢🙂")]),
        ([b"data: \xff\xfe", b""], [Event("message", "��")]),
        ([b"\xef\xbb\xbfdata: a", b""], [Event("message", "a")]),
    ],
)  # fmt: skip
def test_events_are_what_the_standard_says_with_every_line_end(
    lines: list[bytes], events: list[Event], end: bytes
) -> None:
    data = b"".join(line + end for line in lines)
    assert decode(data) == events
    assert decode(*(bytes([byte]) for byte in data)) == events


_LINES = st.lists(
    st.one_of(
        st.sampled_from(
            [b"", b"data: a", b"data", b": hello", b"event: error", b"data:\xc3\xa9", b"id: 1", b"data: x:y"]
        ),
        st.binary(max_size=8).map(lambda noise: b"data: " + noise),
        st.binary(max_size=8),
    ),
    max_size=12,
)
_ENDS = st.lists(st.sampled_from([b"\n", b"\r\n", b"\r"]), min_size=12, max_size=12)


@given(_LINES, _ENDS, st.lists(st.integers(0, 10_000), max_size=20))
def test_however_the_bytes_are_cut_the_events_are_the_same(
    lines: list[bytes], ends: list[bytes], places: list[int]
) -> None:
    data = b"".join(line + end for line, end in zip(lines, ends, strict=False))
    assert decode(*cut(data, places)) == decode(data)


@given(st.lists(st.text(st.characters(exclude_characters="\r", exclude_categories=["Cs"])), max_size=6))
def test_what_was_written_is_read(texts: list[str]) -> None:
    data = "".join("".join(f"data: {line}\n" for line in text.split("\n")) + "\n" for text in texts)
    assert [event.data for event in decode(data.encode())] == texts


def test_json_is_read_whole_from_single_bytes() -> None:
    data = json.dumps({"text": "é\n\u2028\u0085漢🙂"}, ensure_ascii=False)
    (event,) = decode(*(bytes([byte]) for byte in f"data: {data}\r\n\r\n".encode()))
    assert json.loads(event.data)["text"] == "é\n\u2028\u0085漢🙂"


def test_an_event_may_be_large_but_not_endless() -> None:
    piece = b"x" * 2**16
    fitting = [b"data: ", *[piece] * (MAX_EVENT_BYTES // len(piece) - 1), b"\n\n"]
    assert len(decode(*fitting)) == 1
    for endless in (piece, b"data: " + piece + b"\n"):
        with pytest.raises(EventTooLargeError):
            decode(*[endless] * (MAX_EVENT_BYTES // len(piece) + 1))


def test_endless_comments_and_empty_events_use_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("panacea_client.sse.MAX_EVENT_BYTES", 100)
    decoder = EventDecoder()
    for _ in range(200):
        assert list(decoder.feed(b": still here\n")) == []
    assert list(decoder.feed(b"data: a\n\n" * 50)) == [Event("message", "a")] * 50
