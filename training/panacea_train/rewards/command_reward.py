"""Rewards that another program computes."""

import os
import selectors
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from time import monotonic

import msgspec

from panacea_train.prompts import Prompt
from panacea_train.rewards.reward import RewardError, ScoreProgress, excerpt, finite

SILENCE_S = 600.0
"""A program that neither reads nor writes for this long is considered stuck."""

_TICK_S = 0.1
_CHUNK_BYTES = 1 << 16
_NUMBER_BYTES = 1000
"""Longer than any number."""
_WORDS_BYTES = 4096
_WORDS_CHARS = 200


class CommandReward:
    """A program that is run once, without a shell. It gets a line of JSON for each answer on its standard input:

        {"prompt": "...", "messages": [{"role": "user", "content": "..."}], "answer": "...", "fields": {}}

    It writes a number for each answer on its standard output, in the same order, one per line. It may read everything
    first or answer line by line. `prompt` is the user's last message; `fields` are the other fields of the prompt's
    line.
    """

    def __init__(self, name: str, arguments: Sequence[str], silence_s: float = SILENCE_S) -> None:
        """`name` is its name in errors."""
        self._name = name
        self._arguments = arguments
        self._silence_s = silence_s

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str], report: ScoreProgress) -> list[float]:
        """Raises `RewardError` with the last line of standard error if the program fails, is silent for longer than
        `silence_s`, or does not write a finite number for each answer. The program and its children never keep running,
        not even after Ctrl-C.
        """
        if not answers:
            return []
        scores: list[float] = []

        def take(line: str) -> None:
            if len(scores) == len(answers):
                raise RewardError(f"{self._name} wrote more lines than the {len(answers)} answers it got")
            place = len(scores)
            try:
                number = float(line)
            except ValueError:
                raise RewardError(f'{self._name} wrote "{excerpt(line)}" on line {place + 1}, not a number') from None
            scores.append(finite(number, self._name, prompts[place], answers[place]))
            report(1)

        lines = (_line(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True))
        process = self._start()
        talk = _Talk(process, lines, take)
        succeeded = False
        try:
            code = talk.until_it_ended(self._silence_s)
            if code:
                ending = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
                raise RewardError(f"{self._name} {ending} after {len(scores)} of {len(answers)} scores")
            if len(scores) < len(answers):
                raise RewardError(f"{self._name} wrote {len(scores)} numbers for {len(answers)} answers")
            succeeded = True
        except _SilenceError:
            raise RewardError(
                f"{self._name} was silent for {self._silence_s:g} s after {len(scores)} of {len(answers)} scores"
                f"{talk.last_words}"
            ) from None
        except RewardError as error:
            raise RewardError(f"{error}{talk.last_words}") from None
        finally:
            _end(process, with_children=not succeeded)
        return scores

    def _start(self) -> "subprocess.Popen[bytes]":
        try:
            return subprocess.Popen(
                self._arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,  # so that its children can be killed with it
                # Buffered scores would look like silence.
                env={"PYTHONUNBUFFERED": "1", **os.environ},
            )
        except OSError as error:
            raise RewardError(f"{self._name} cannot be started: {error.strerror}") from None


def read_command(name: str, line: str) -> CommandReward:
    """The command in `line`, in a shell's notation. Raises `RewardError` if there is no such program."""
    try:
        arguments = shlex.split(line)
    except ValueError as error:
        raise RewardError(f"{name} cannot be split into words: {error}") from None
    if not arguments or shutil.which(arguments[0]) is None:
        raise RewardError(f"{name}: the program {arguments[0] if arguments else line!r} does not exist")
    return CommandReward(name, arguments)


class _SilenceError(Exception):
    pass


class _Talk:
    """Reads from and writes to a process at the same time, so that neither side can block the other."""

    def __init__(self, process: "subprocess.Popen[bytes]", lines: Iterator[bytes], take: Callable[[str], None]) -> None:
        self._process = process
        self._lines = lines
        self._take = take
        self._unsent = memoryview(b"")
        self._unread = b""
        self._words = b""

    @property
    def last_words(self) -> str:
        """The last line on its standard error, as the end of a message."""
        lines = [line for line in self._words.decode(errors="replace").splitlines() if line.strip()]
        return f"; its last words: {excerpt(lines[-1], _WORDS_CHARS)}" if lines else ""

    def until_it_ended(self, silence_s: float) -> int:
        """Its exit code, after all its output was read. Raises `_SilenceError`."""
        stdin, stdout, stderr = self._process.stdin, self._process.stdout, self._process.stderr
        assert stdin is not None
        assert stdout is not None
        assert stderr is not None
        heard = monotonic()
        with selectors.DefaultSelector() as selector:
            for pipe, event, handle in (
                (stdin, selectors.EVENT_WRITE, self._send),
                (stdout, selectors.EVENT_READ, self._read),
                (stderr, selectors.EVENT_READ, self._listen),
            ):
                os.set_blocking(pipe.fileno(), False)
                selector.register(pipe, event, handle)
            while True:
                # Polled before the pipes are read, so that they contain its last output.
                code = self._process.poll()
                ready = selector.select(_TICK_S if code is None else 0)
                for key, _ in ready:
                    is_open: bool = key.data(key.fd)
                    if not is_open:
                        selector.unregister(key.fileobj)
                        key.fileobj.close()  # type: ignore[union-attr]  # one of the three pipes
                if ready:
                    heard = monotonic()
                elif code is not None:
                    break
                elif monotonic() - heard > silence_s:
                    raise _SilenceError
        if self._unread:
            self._take(self._unread.decode(errors="replace"))
        return code

    def _send(self, fd: int) -> bool:
        if not self._unsent:
            self._unsent = memoryview(next(self._lines, b""))
            if not self._unsent:
                return False
        try:
            self._unsent = self._unsent[os.write(fd, self._unsent[:_CHUNK_BYTES]) :]
        except BrokenPipeError:  # it stopped reading; the number of its scores shows whether that is an error
            return False
        return True

    def _read(self, fd: int) -> bool:
        chunk = os.read(fd, _CHUNK_BYTES)
        *lines, self._unread = (self._unread + chunk).split(b"\n")
        if len(self._unread) > _NUMBER_BYTES:
            lines.append(self._unread)
        for line in lines:
            self._take(line.decode(errors="replace"))
        return bool(chunk)

    def _listen(self, fd: int) -> bool:
        chunk = os.read(fd, _CHUNK_BYTES)
        self._words = (self._words + chunk)[-_WORDS_BYTES:]
        return bool(chunk)


def _line(prompt: Prompt, answer: str) -> bytes:
    messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
    asked = {"prompt": prompt.text, "messages": messages, "answer": answer, "fields": prompt.fields}
    return msgspec.json.encode(asked) + b"\n"


def _end(process: "subprocess.Popen[bytes]", *, with_children: bool) -> None:
    if with_children:
        # Children are in its process group, even after it has ended.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
    process.wait()
