"""The server's half of the text workers: starts the process that forks them, and speaks with each of them."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Self

import msgspec

from panacea.errors import CheckpointError, TextWorkerError
from panacea.text.jobs import JobReply
from panacea.text.worker import ANSWER, BURY, COMMAND, FORK, LENGTH, TEMPLATE_CPU_S, LoadFailed, TextLoaded

_OWN_FAULTS = frozenset({signal.SIGPROF, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL})
"""Signals of a process that used up its CPU time, its stack or its memory. Nobody else sends them."""


class TextWorker:
    """A worker process that performs one job at a time. Made by `ForkServer.fork`."""

    def __init__(
        self, server: "ForkServer", pid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.pid = pid
        self.jobs = 0
        """Jobs that it has been asked for."""
        self._server = server
        self._reader = reader
        self._writer = writer
        self._decoder: msgspec.msgpack.Decoder[JobReply] = msgspec.msgpack.Decoder(JobReply)
        self._burial: asyncio.Future[int] | None = None

    async def ask(self, job: bytes) -> JobReply:
        """The reply to an encoded job. Raises `EOFError` or `OSError` if the worker has ended."""
        self.jobs += 1
        self._writer.write(LENGTH.pack(len(job)) + job)
        await self._writer.drain()
        (length,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
        return self._decoder.decode(await self._reader.readexactly(length))

    def end(self) -> "asyncio.Future[int]":
        """Kills the worker. The result is its exit code, or minus the signal that had ended it before."""
        if self._burial is None:
            self._writer.close()
            self._burial = self._server.command(BURY, self.pid)
        return self._burial

    async def ended_itself(self) -> bool:
        """Whether the worker has died because its job exceeded a limit."""
        try:
            return -await asyncio.shield(self.end()) in _OWN_FAULTS
        except TextWorkerError:
            return False

    def close(self) -> None:
        """Closes the socket, so that an idle worker ends."""
        self._writer.close()


class ForkServer:
    """The process that has loaded a model's text and forks workers. Made by `start`."""

    loaded: TextLoaded

    def __init__(self, folder: Path) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            self._control.setblocking(False)
            number = theirs.fileno()
            command = (sys.executable, "-m", "panacea.text.worker", str(folder), str(number), str(os.getpid()))
            # In its own session, so that Ctrl-C reaches only the server. A library's threads would not survive a fork.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                pass_fds=[number],
                start_new_session=True,
                env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},
            )
        self._turn = asyncio.Lock()
        self._commands: set[asyncio.Task[int]] = set()

    @classmethod
    async def start(cls, folder: Path) -> Self:
        """Starts the process and waits until the text is loaded.

        Raises `CheckpointError` if the folder, or its chat template, cannot be used.
        """
        server = cls(folder)
        try:
            server.loaded = await server._first_message()
        except BaseException:
            await server.close()
            raise
        return server

    @property
    def pid(self) -> int:
        return self._process.pid

    async def fork(self) -> TextWorker:
        """A new worker. Raises `TextWorkerError` if this process has ended."""
        ours, theirs = socket.socketpair()
        forking = self.command(FORK, passed=theirs)
        try:
            pid = await asyncio.shield(forking)
            reader, writer = await asyncio.open_connection(sock=ours)
        except BaseException:
            ours.close()  # the worker, if there is one, ends
            if not forking.cancelled():
                forking.add_done_callback(self._bury_forked)
            raise
        return TextWorker(self, pid, reader, writer)

    def command(self, kind: bytes, pid: int = 0, passed: socket.socket | None = None) -> asyncio.Task[int]:
        """Sends a command of `panacea.text.worker`. The task has the answer, or a `TextWorkerError`.

        Do not cancel the task, because the answer would remain. `passed` is closed once it is sent.
        """
        task = asyncio.get_running_loop().create_task(self._command(kind, pid, passed))
        self._commands.add(task)
        task.add_done_callback(self._forget)
        return task

    async def close(self) -> None:
        """Ends the process, and so all workers. Calling it again changes nothing."""
        self._process.kill()  # the kernel kills its workers too; without such a kernel they see their sockets close
        self._process.wait()
        await asyncio.gather(*self._commands, return_exceptions=True)
        self._control.close()

    async def _command(self, kind: bytes, pid: int, passed: socket.socket | None) -> int:
        async with self._turn:
            try:
                socket.send_fds(self._control, [COMMAND.pack(kind, pid)], [] if passed is None else [passed.fileno()])
                answer: int
                (answer,) = ANSWER.unpack(await self._receive(ANSWER.size))
            except OSError as error:
                raise TextWorkerError("the process that starts text workers has ended; try again") from error
            finally:
                if passed is not None:
                    passed.close()
        return answer

    def _forget(self, command: asyncio.Task[int]) -> None:
        self._commands.discard(command)
        if not command.cancelled():
            command.exception()  # mostly nobody waits for a burial

    def _bury_forked(self, forking: asyncio.Task[int]) -> None:
        if not forking.cancelled() and forking.exception() is None:
            self.command(BURY, forking.result())

    async def _first_message(self) -> TextLoaded:
        try:
            (length,) = LENGTH.unpack(await self._receive(LENGTH.size))
            data = await self._receive(length)
        except OSError as error:
            raise CheckpointError(_load_error(self._process.wait())) from error
        message = msgspec.msgpack.decode(data, type=TextLoaded | LoadFailed)
        if isinstance(message, LoadFailed):
            raise CheckpointError(message.error)
        return message

    async def _receive(self, size: int) -> bytes:
        """Exactly `size` bytes. Raises `OSError` if the process has ended."""
        data = b""
        while len(data) < size:
            part = await asyncio.get_running_loop().sock_recv(self._control, size - len(data))
            if not part:
                raise ConnectionResetError
            data += part
        return data


def _load_error(code: int) -> str:
    if -code == signal.SIGPROF:
        return (
            f"the model's chat template takes more than {TEMPLATE_CPU_S} seconds to compile, or to render one word; "
            "use another template"
        )
    if -code in _OWN_FAULTS:
        return "the model's tokenizer or chat template takes too much memory to load; use another one"
    return f"the process that loads the tokenizer and the chat template ended with code {code}"
