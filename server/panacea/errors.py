"""Every error that Panacea raises on purpose.

PanaceaError
├── ConfigError        a flag, variable or configuration file is wrong; the command ends with exit code 2
│   └── OptionError        the value of one option is wrong
├── OutputError        a result cannot be put where it belongs (full disk, another run); exit code 1
├── CheckpointError    a base model or adapter on disk is damaged or not supported
├── PreferenceError    the weights are not a valid preference in this preference space
├── RequestError       this engine can never serve the request (too long, unknown token, ...)
│   └── PromptTooLongError the prompt's text is longer than any text that fits into the context
├── TextWorkerError    a worker process for text was killed or late; another attempt may succeed
└── EngineError        the engine failed on a valid request
    ├── EngineDeadError    the engine's process has ended; the supervisor may start another one
    ├── QueueTimeoutError  the request waited too long in the queue
    └── RequestFailedError this request could not be computed; the engine continues
"""


class PanaceaError(Exception):
    """Base of all errors below. `str(error)` is one line that a user can act on."""


class ConfigError(PanaceaError):
    """A flag, environment variable or configuration file has a value that cannot be used."""


class OptionError(ConfigError):
    """The value of one option cannot be used.

    `option` is the name of the configuration's field, like max_batch. `problem` is the rest of the sentence.
    """

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(f"{option} {problem}")
        self.option = option
        self.problem = problem


class OutputError(PanaceaError):
    """A result cannot be put where it belongs: the disk is full, or somebody else uses the place."""


class CheckpointError(PanaceaError):
    """A base model or adapter on disk is damaged or not supported."""


class PreferenceError(PanaceaError):
    """The weights are not a valid preference in this preference space."""


class RequestError(PanaceaError):
    """The engine rejects this request at once, because it can never serve it.

    `param` is the request's field at fault, as the HTTP API names it.
    """

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class PromptTooLongError(RequestError):
    """The prompt's text is longer than any text whose tokens fit into the context. It is not tokenized."""

    def __init__(self, max_chars: int, param: str) -> None:
        self.max_chars = max_chars
        super().__init__(
            f"{param}: the text has more characters than the context can hold, which are at most {max_chars}", param
        )


class TextWorkerError(PanaceaError):
    """A worker process for text was killed or late. Nothing is known about the request; another attempt may succeed."""

    retry_after_s = 1.0
    """Seconds to wait before another attempt."""


class EngineError(PanaceaError):
    """The engine failed on a valid request."""

    retry_after_s = 1.0
    """Seconds to wait before another attempt."""


class EngineDeadError(EngineError):
    """The engine's process has ended. The supervisor may start another one."""


class QueueTimeoutError(EngineError):
    """The request waited too long in the queue. Nothing was computed for it."""


class RequestFailedError(EngineError):
    """This request could not be computed. The engine continues with all others."""

    def __init__(self, message: str, index: int | None = None) -> None:
        """`index` is the position of the request, if it was one of several in a call."""
        super().__init__(message)
        self.index = index


def is_contained(error: BaseException) -> bool:
    """Whether an exception that one request caused may be answered with an error for this request alone.

    A panic in a Rust library is not an `Exception`, and yet an error like any other. Requests to end the process are
    not contained.
    """
    return not isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit))


def first_line(error: BaseException) -> str:
    """The first line of another library's error message, or the name of its type if the message is empty."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
