"""The logs that the server and its engine write to standard error: one line per event, as text or as JSON.

A line never contains a prompt, an answer or a key. So an exception is logged as its type and its places in the code,
without its message: "could not convert 'my secret' to a number" would reveal the secret. Only the first line of other
packages' messages is logged, because asyncio repeats exceptions in the second.
"""

import atexit
import json
import logging
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from panacea.config import LogConfig, LogFormat
from panacea.log_writer import EXIT_LIMIT_S, LogWriter

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""`x-request-id` of the request that the current task serves. Every log line of a request carries it."""

_WORD = re.compile(r"[^\s\"=]+")
_ExceptionInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def configure_logs(config: LogConfig) -> None:
    """Sends all logs of this process, and all uncaught exceptions, to standard error in one format.

    It replaces `sys.stderr` by a `LogWriter`, so nothing that Python writes there waits for a reader. Other packages'
    logs are shown from level warning on. Call it again after the import of transformers, which installs its own
    handler.
    """
    shown_as = formatter(config.format)
    if isinstance(sys.stderr, LogWriter):
        sys.stderr.notice = _notice_in(shown_as)
    elif sys.stderr is not None:  # pyright: ignore[reportUnnecessaryComparison]  # it is where descriptor 2 is closed
        sys.stderr = LogWriter(sys.stderr, _notice_in(shown_as))
        atexit.register(sys.stderr.wait_until_written)
    handler = logging.NullHandler() if sys.stderr is None else logging.StreamHandler(sys.stderr)
    handler.setFormatter(shown_as)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(logging.WARNING, _level(config)))
    logging.getLogger("panacea").setLevel(_level(config))
    logging.captureWarnings(True)
    transformers = logging.getLogger("transformers")
    transformers.handlers = []
    transformers.propagate = True
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda uncaught: _log_uncaught(uncaught.exc_type, uncaught.exc_value, uncaught.exc_traceback)


def flush_logs(limit_s: float = EXIT_LIMIT_S) -> None:
    """Waits until all lines are written, but no longer than `limit_s`."""
    if isinstance(sys.stderr, LogWriter):
        sys.stderr.wait_until_written(limit_s)


def log_lines_dropped() -> int:
    """Lines of this process that were lost, because nobody read them."""
    return sys.stderr.dropped if isinstance(sys.stderr, LogWriter) else 0


def _notice_in(shown_as: logging.Formatter) -> Callable[[int], str]:
    def notice(lost: int) -> str:
        text = f"{lost} log lines were lost: standard error was not read fast enough"
        return shown_as.format(logging.LogRecord("panacea.logs", logging.WARNING, "", 0, text, None, None))

    return notice


def logs_json() -> bool:
    """Whether the logs of this process are JSON."""
    return any(isinstance(handler.formatter, _JsonFormatter) for handler in logging.getLogger().handlers)


def formatter(kind: LogFormat) -> logging.Formatter:
    """Formats a record: its message, its `extra={"fields": {...}}`, the request's id, and its exception's places."""
    return _JsonFormatter() if kind == "json" else _TextFormatter()


class _Formatter(logging.Formatter):
    def formatException(self, ei: _ExceptionInfo) -> str:  # noqa: N802 (logging's own name)
        return "\n".join(_described(ei[1])) if ei[1] is not None else ""

    def message(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        return text if record.name.partition(".")[0] == "panacea" else text.partition("\n")[0]

    def fields(self, record: logging.LogRecord) -> Mapping[str, Any]:
        fields: dict[str, Any] = dict(getattr(record, "fields", {}))
        current = request_id.get()
        return fields if current is None else {**fields, "request_id": current}

    def exception(self, record: logging.LogRecord) -> str:
        return self.formatException(record.exc_info) if record.exc_info else ""


class _TextFormatter(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        fields = "".join(f" {name}={_word(value)}" for name, value in self.fields(record).items())
        exception = self.exception(record)
        line = f"{time} {record.levelname.lower():7} {self.message(record)}{fields}"
        return f"{line}\n{exception}" if exception else line


class _JsonFormatter(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self.message(record),
            **self.fields(record),
        }
        if exception := self.exception(record):
            line["exception"] = exception
        return json.dumps(line, default=str)


def _word(value: Any) -> str:
    """The value as one word. It is quoted if it could be read as two fields."""
    text = str(value)
    return text if _WORD.fullmatch(text) else json.dumps(value, default=str)


def _log_uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if error is None or issubclass(kind, KeyboardInterrupt | SystemExit):
        return
    logging.getLogger("panacea").critical("uncaught exception", exc_info=(kind, error, trace))


def _level(config: LogConfig) -> int:
    return logging.getLevelNamesMapping()[config.level.upper()]


def _described(error: BaseException) -> Iterator[str]:
    """Types and places of an exception and of its causes. The first cause comes first."""
    seen: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in seen:
        seen.append(current)
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    for each in reversed(seen):
        for frame in traceback.extract_tb(each.__traceback__):
            yield f"  {frame.filename}:{frame.lineno} in {frame.name}"
        yield f"{type(each).__module__}.{type(each).__qualname__}"
