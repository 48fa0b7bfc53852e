"""The text workers: `python -m panacea.text.worker FOLDER CONTROL SERVER`, started by `ForkServer`.

This process loads the tokenizer and the chat template once, and then only forks. A fork takes milliseconds and shares
its memory, so a worker that has to be killed is replaced at once. Each worker performs one job at a time.

CONTROL is the number of an open socket to the server, SERVER the server's process id. The process ends when the server
closes the socket or dies. Its first message is a `TextLoaded` or a `LoadFailed`. Then it follows commands of five
bytes:

- `FORK`, with a socket for the new worker's jobs; the answer is the worker's process id.
- `BURY` and a process id: kills the worker; the answer is its exit code, or minus the signal that ended it.
"""

import gc
import os
import resource
import signal
import socket
import struct
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import msgspec

from panacea.engine import grammar_check
from panacea.engine.parent_death import die_with
from panacea.errors import CheckpointError, PanaceaError, PromptTooLongError, RequestError, first_line
from panacea.text.chat_template import ChatMessage
from panacea.text.jobs import AnyJob, JobDone, JobFailed, JobRefused, JobReply, JobTooLong
from panacea.text.model_text import ModelText, load_model_tokens, with_template

FORK = b"F"
BURY = b"B"
COMMAND = struct.Struct("<ci")
ANSWER = struct.Struct("<i")
LENGTH = struct.Struct("<I")
"""Before each job, each reply and the first message."""

TEMPLATE_CPU_S = 3
"""CPU seconds to compile a chat template and to render a first conversation."""
_MEMORY_BYTES = 1 << 30
"""Memory that a job may take besides the loaded model text. 4 MB of text in tokens of one byte take 0.6 GB."""


class TextLoaded(msgspec.Struct, frozen=True, tag=True):
    """The process is ready to fork."""

    template_variables: frozenset[str]


class LoadFailed(msgspec.Struct, frozen=True, tag=True):
    """The folder cannot be read. The process ends."""

    error: str


def load(folder: Path) -> ModelText:
    """The folder's text. Raises `CheckpointError` for a folder, or a template, that cannot be used.

    A template that takes too much CPU time ends this process by `SIGPROF`.
    """
    tokens = load_model_tokens(folder)
    with suppress(ValueError, OSError):  # macOS has no such limit
        _limit_memory()
    _limit_cpu(TEMPLATE_CPU_S)
    text = with_template(tokens, folder)
    if text.prompts is not None:
        _try_template(text)
    _limit_cpu(0)
    return text


def _try_template(text: ModelText) -> None:
    """Some templates reject this conversation. None may exceed its limits on it."""
    try:
        text.prompt_ids([ChatMessage("user", "Hello")])
    except RequestError as error:
        if isinstance(error.__cause__, MemoryError | RecursionError):
            raise CheckpointError(
                "the chat template takes too much memory for a conversation of one word; use another template"
            ) from error


def perform(text: ModelText, job: AnyJob) -> JobReply:
    """The reply to one job."""
    try:
        return JobDone(job.perform(text))
    except PromptTooLongError as error:
        return JobTooLong(error.max_chars, error.param or job.param)
    except RequestError as error:
        return JobRefused(str(error), error.param)
    except MemoryError:
        return JobRefused(job.too_much, job.param)
    except BaseException as error:  # a panic in Rust is not an `Exception`
        return JobFailed(type(error).__name__)


def work(jobs: socket.socket, text: ModelText) -> None:
    """Performs jobs until the server closes the socket."""
    decoder: msgspec.msgpack.Decoder[AnyJob] = msgspec.msgpack.Decoder(AnyJob)
    stream = jobs.makefile("rb")
    while len(header := stream.read(LENGTH.size)) == LENGTH.size:
        job = decoder.decode(stream.read(*LENGTH.unpack(header)))
        _limit_cpu(job.cpu_limit_s)
        reply = msgspec.msgpack.encode(perform(text, job))
        _limit_cpu(0)
        send(jobs, reply)


def send(connection: socket.socket, message: bytes) -> None:
    """Sends a message with its length before it."""
    connection.sendall(LENGTH.pack(len(message)))
    connection.sendall(message)


def _limit_cpu(seconds: float) -> None:
    # The kernel counts all threads and ends the process, whatever it computes. 0 ends the limit.
    signal.setitimer(signal.ITIMER_PROF, seconds)


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + _MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _become_worker(jobs: socket.socket, text: ModelText, parent: int) -> NoReturn:
    die_with(parent)
    # Panics in Rust write what they worked on, which is a client's, to standard error.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    threading.stack_size(grammar_check.STACK_BYTES)
    thread = threading.Thread(target=work, args=[jobs, text])
    thread.start()
    thread.join()
    os._exit(0)


def serve_forks(control: socket.socket, text: ModelText) -> None:
    """Follows the server's commands until it closes the socket."""
    own = os.getpid()
    while True:
        command, given, *_ = socket.recv_fds(control, COMMAND.size, 1)
        if not command:
            return
        kind, pid = COMMAND.unpack(command)
        if kind == FORK:
            (number,) = given
            pid = os.fork()
            if pid == 0:
                control.close()
                _become_worker(socket.socket(fileno=number), text, own)
            os.close(number)
            control.sendall(ANSWER.pack(pid))
        else:
            # An ended worker keeps its process id until here, so no other process can have it.
            os.kill(pid, signal.SIGKILL)
            control.sendall(ANSWER.pack(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))


def main() -> None:
    folder, number, server = sys.argv[1:]
    die_with(int(server))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    control = socket.socket(fileno=int(number))
    try:
        text = load(Path(folder))
    except PanaceaError as error:
        send(control, msgspec.msgpack.encode(LoadFailed(str(error))))
        return
    except Exception as error:
        send(control, msgspec.msgpack.encode(LoadFailed(f"{type(error).__name__}: {first_line(error)}")))
        return
    grammar_check.byte_tokenizer()
    gc.freeze()  # workers share these objects' memory as long as nobody writes to it
    send(control, msgspec.msgpack.encode(TextLoaded(text.template_variables)))
    serve_forks(control, text)


if __name__ == "__main__":
    main()
