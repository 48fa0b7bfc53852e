"""Every error that Panacea raises on purpose.

PanaceaError
├── ConfigError        a flag, variable or configuration file is wrong; the command ends with exit code 2
├── CheckpointError    a base model or adapter on disk cannot be served as it is
├── PreferenceError    weights that are no preference in this preference space
├── RequestError       a request that this engine can never serve (too long, unknown token, ...)
└── EngineError        the engine failed under a request that was good
    ├── EngineDeadError    its process is gone; another one may be on its way
    ├── QueueTimeoutError  a request waited too long for its turn
    └── RequestFailedError this one request could not be computed; the engine goes on
"""


class PanaceaError(Exception):
    """Base of all errors below; `str(error)` is one line that a user can act on."""


class ConfigError(PanaceaError):
    """A flag, environment variable or configuration file has a value that cannot be used."""


class CheckpointError(PanaceaError):
    """A base model or adapter on disk is damaged, or of a kind that is not supported."""


class PreferenceError(PanaceaError):
    """Weights that are no preference in this preference space."""


class RequestError(PanaceaError):
    """A request that the engine refuses at once, because it could never be served.

    `param` is the request's field at fault, in the words of the HTTP contract.
    """

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class EngineError(PanaceaError):
    """The engine failed under a request that was good."""

    retry_after_s = 1.0
    """When it may be worth to try again."""


class EngineDeadError(EngineError):
    """The engine's process is gone. Another one may be on its way."""


class QueueTimeoutError(EngineError):
    """A request waited too long for its turn. Nothing was computed for it."""


class RequestFailedError(EngineError):
    """This one request could not be computed. The engine and all other requests go on."""

    def __init__(self, message: str, index: int | None = None) -> None:
        """`index`: of the request, if it was one of several in a call."""
        super().__init__(message)
        self.index = index


def first_line(error: BaseException) -> str:
    """What another library's `error` says in one line; its type's name if it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
