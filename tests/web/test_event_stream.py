"""Server-sent events from bytes that are cut anywhere, against the HTML standard's rules written in Python."""

import itertools
import random
import re

import pytest

from tests.web.modules import CallModule

Event = list[str]
Events = list[Event]

# Streams of Latin-1 text: one character a byte. `chunked` makes a body of them that notes when it is cancelled.
CHUNKED = """
  const chunked = (chunks, log = {}) => new ReadableStream({
    pull(controller) {
      const chunk = chunks[log.pulled = (log.pulled ?? -1) + 1];
      if (chunk === undefined && log.endless) return new Promise(() => {});
      if (chunk === undefined) controller.close();
      else controller.enqueue(Uint8Array.from(chunk, (character) => character.charCodeAt(0)));
    },
    cancel() { log.cancelled = true; },
  }, { highWaterMark: 0 });
  const cut = (text, positions) =>
    [0, ...positions].map((from, index) => text.slice(from, positions[index]));
"""

SAMPLES: list[tuple[str, Events]] = [
    ("", []),
    ("\n\n\n", []),
    ("data: one\n\n", [["message", "one"]]),
    ("data: one\n\ndata: two\n\n", [["message", "one"], ["message", "two"]]),
    ("data: one\r\n\r\ndata: two\r\n\r\n", [["message", "one"], ["message", "two"]]),
    ("data: one\r\rdata: two\r\r", [["message", "one"], ["message", "two"]]),
    ("data: one\r\n\ndata: two\n\r\ndata: three\r\r\n", [["message", "one"], ["message", "two"], ["message", "three"]]),
    ("event: error\ndata: {}\n\ndata: next\n\n", [["error", "{}"], ["message", "next"]]),
    ("data: next\nevent: late\n\n", [["late", "next"]]),
    ("event: a\nevent: b\ndata: x\n\n", [["b", "x"]]),
    ("event: without data\n\ndata: x\n\n", [["message", "x"]]),
    ("event:\ndata: x\n\n", [["message", "x"]]),
    (": comment\n:\ndata: x\n: another\ndata: y\n\n", [["message", "x\ny"]]),
    ("data: a\ndata:\ndata: b\n\n", [["message", "a\n\nb"]]),
    ("data\n\n", [["message", ""]]),
    ("data\ndata\n\n", [["message", "\n"]]),
    (
        "data:one space\n\ndata:  two\n\ndata:\tnone\n\n",
        [["message", "one space"], ["message", " two"], ["message", "\tnone"]],
    ),
    ("data: a: b:c\n\n", [["message", "a: b:c"]]),
    ("id: 7\nretry: 100\ndata: x\nData: y\n data: z\n\n", [["message", "x"]]),
    ("data: kept\n\ndata: dropped", [["message", "kept"]]),
    ("data: kept\n\ndata: dropped\n", [["message", "kept"]]),
    ("data: kept\r\n\r\ndata: dropped\r\n", [["message", "kept"]]),
    ("\ufeffdata: x\n\n", [["message", "x"]]),
    ("\ufeff\ufeffdata: x\n\ndata: y\n\n", [["message", "y"]]),
    ("data: \ufeffx\n\n", [["message", "\ufeffx"]]),
    ("data: né 北京 🔪 e\u0301\n\n", [["message", "né 北京 🔪 e\u0301"]]),
    (
        "data: line\u2028separator\u0085next\x0bline\x0cfeed\x1c\n\n",
        [["message", "line\u2028separator\u0085next\x0bline\x0cfeed\x1c"]],
    ),
    (
        'data: {"choices":[{"delta":{"content":"🔪"}}]}\n\ndata: [DONE]\n\n',
        [["message", '{"choices":[{"delta":{"content":"🔪"}}]}'], ["message", "[DONE]"]],
    ),
]


def bytes_of(text: str) -> str:
    """UTF-8, a character a byte."""
    return text.encode().decode("latin-1")


def by_the_standard(stream: str) -> Events:
    """WHATWG HTML, 9.2.6: interpreting an event stream."""
    events: Events = []
    kind = data = ""
    *lines, _ = re.split("\r\n|\n|\r", stream.removeprefix("\ufeff"))
    for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                events.append([kind or "message", data.removesuffix("\n")])
            kind = data = ""
        elif field == "event":
            kind = value
        elif field == "data":
            data += value + "\n"
    return events


def read(modules: CallModule, cases: list[tuple[str, list[int]]]) -> list[Events]:
    """The events of each text when its bytes are cut at these positions."""
    found: list[Events] = modules(
        "event_stream",
        f"""async ({{ serverEvents }}, cases) => {{
          {CHUNKED}
          return Promise.all(cases.map(async ([text, positions]) => {{
            const found = [];
            const events = serverEvents(chunked(cut(text, positions)));
            for await (const {{ event, data }} of events) found.push([event, data]);
            return found;
          }}));
        }}""",
        [(bytes_of(text), positions) for text, positions in cases],
    )
    return found


@pytest.mark.parametrize(("text", "expected"), SAMPLES)
def test_events_are_as_the_standard_says(modules: CallModule, text: str, expected: Events) -> None:
    assert read(modules, [(text, [])]) == [expected]
    assert by_the_standard(text) == expected


def test_bytes_may_be_cut_anywhere(modules: CallModule) -> None:
    generator = random.Random(1)
    cases: list[tuple[str, list[int]]] = []
    for text, _ in SAMPLES:
        size = len(bytes_of(text))
        cases.append((text, list(range(1, size))))  # one by one
        cases += [(text, [position]) for position in range(1, size)]
        cases += [(text, [position, position]) for position in range(1, size, 7)]  # an empty piece
        for _ in range(5):
            cases.append((text, sorted(generator.choices(range(size + 1), k=generator.randint(2, 8)))))
    expected = dict(SAMPLES)
    for (text, cuts), events in zip(cases, read(modules, cases), strict=True):
        assert events == expected[text], (text, cuts)


def test_random_streams_are_read_by_the_standard_however_they_are_cut(modules: CallModule) -> None:
    generator = random.Random(2)
    parts = ["data", "event", ":", ": ", " ", "\n", "\r", "\r\n", "\n\n", "x", "é", "🔪", "\ufeff", "data: ", "id: 1\n"]
    cases: list[tuple[str, list[int]]] = []
    for _ in range(600):
        text = "".join(generator.choices(parts, k=generator.randint(1, 40)))
        places = range(len(bytes_of(text)) + 1)
        cases.append((text, sorted(generator.choices(places, k=generator.randint(0, 10)))))
    for (text, cuts), events in zip(cases, read(modules, cases), strict=True):
        assert events == by_the_standard(text), (text, cuts)


@pytest.mark.parametrize("ending", ["\n\n", "\r\n\r\n", "\r\r"])
def test_an_event_is_there_with_its_last_byte(modules: CallModule, ending: str) -> None:
    """Nothing waits for the next one: of a carriage return too, a line feed that follows changes nothing."""
    first = modules(
        "event_stream",
        f"""async ({{ serverEvents }}, text) => {{
          {CHUNKED}
          const events = serverEvents(chunked([text], {{ endless: true }}));
          const silence = new Promise((resolve) => setTimeout(resolve, 3000, null));
          const found = await Promise.race([events.next(), silence]);
          return found?.value;
        }}""",
        f"data: x{ending}",
    )
    assert first == {"event": "message", "data": "x"}


@pytest.mark.parametrize("way", ["break", "throw", "return"])
def test_who_stops_early_cancels_the_stream(modules: CallModule, way: str) -> None:
    log = modules(
        "event_stream",
        f"""async ({{ serverEvents }}, way) => {{
          {CHUNKED}
          const log = {{ endless: true }};
          const events = serverEvents(chunked(Array.from({{ length: 100 }}, () => "data: x\\n\\n"), log));
          try {{
            if (way === "return") await events.next().then(() => events.return());
            else for await (const {{ data }} of events) {{
              if (way === "throw") throw new Error(data);
              break;
            }}
          }} catch (error) {{
            log.error = error.message;
          }}
          return {{ ...log, after: await events.next() }};
        }}""",
        way,
    )
    assert log["cancelled"] is True
    assert log["pulled"] < 10, "and nothing more was read than what was on its way"
    assert log["after"]["done"] is True
    assert log.get("error") == ("x" if way == "throw" else None)


def test_an_error_of_the_stream_comes_after_the_events_before_it(modules: CallModule) -> None:
    log = modules(
        "event_stream",
        """async ({ serverEvents }) => {
          const pieces = ["data: one\\n\\n", "data: two\\n\\nda"];
          const body = new ReadableStream({
            pull(controller) {
              const piece = pieces.shift();
              if (piece === undefined) controller.error(new TypeError("the line is dead"));
              else controller.enqueue(new TextEncoder().encode(piece));
            },
          }, { highWaterMark: 0 });
          const log = [];
          try {
            for await (const { data } of serverEvents(body)) log.push(data);
          } catch (error) {
            log.push(error.message);
          }
          return log;
        }""",
    )
    assert log == ["one", "two", "the line is dead"]


def test_bytes_that_are_no_text_do_not_end_it(modules: CallModule) -> None:
    found = modules(
        "event_stream",
        f"""async ({{ serverEvents }}) => {{
          {CHUNKED}
          const found = [];
          const events = serverEvents(chunked(["data: \\xff\\xc3(\\n\\n", "data: y\\n\\n\\xe4"]));
          for await (const {{ data }} of events) found.push(data);
          return found;
        }}""",
    )
    assert found == ["\ufffd\ufffd(", "y"]


def test_a_long_event_in_small_pieces_is_quick(modules: CallModule) -> None:
    sizes = itertools.repeat(50, 4000)
    positions = list(itertools.accumulate(sizes))
    text = "data: " + "x" * positions[-1] + "\n\n"
    assert read(modules, [(text, positions)]) == [[["message", "x" * positions[-1]]]]
