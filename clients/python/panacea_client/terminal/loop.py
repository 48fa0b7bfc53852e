"""Reads lines and answers them, until there are no more."""

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress

from panacea_client.client import Panacea
from panacea_client.errors import BadRequestError, PanaceaError
from panacea_client.streams import ChatStream
from panacea_client.terminal.commands import Leave, Terminal, follow, shown
from panacea_client.terminal.screen import Screen
from panacea_client.terminal.session import InputError, Session

INTERRUPTED = 130
"""Exit code of a command that Ctrl-C ended, as shells count."""


def run(base_url: str | None, model: str | None, system: str | None, weights: Sequence[str]) -> int:
    """Talks until the input ends, and returns the exit code.

    A person sees what went wrong and goes on; input that is no terminal's is read to its end, and the code says whether
    all went well. `weights` are words as `/set` takes them.
    """
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        # Bytes that are no text in this locale must not end the program.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    screen = Screen()
    try:
        with Panacea(base_url) as client:
            session = Session(client.preferences(), model, system)
            if weights:
                session.set_preference(list(weights))
            terminal = Terminal(client, session, screen)
            _welcome(terminal)
            return _talk(terminal)
    except (PanaceaError, InputError) as error:
        screen.complain(f"panacea-chat: {error}")
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


def _talk(terminal: Terminal) -> int:
    code = 0
    for line in _lines(terminal.screen):
        try:
            if line.startswith("/"):
                follow(terminal, line)
            elif line:
                _answer(terminal, line)
        except Leave:
            return code
        except (PanaceaError, InputError) as error:
            terminal.screen.complain(str(error))
            if isinstance(error, BadRequestError) and error.code == "context_length_exceeded":
                terminal.screen.hint("/new begins a new conversation")
            code = 0 if terminal.screen.interactive else 1
        except KeyboardInterrupt:
            if not terminal.screen.interactive:
                raise
            terminal.screen.hint("\n(stopped)")
    return code


def _lines(screen: Screen) -> Iterator[str]:
    if not screen.interactive:
        for line in sys.stdin:
            yield line.strip()
        return
    with suppress(ImportError):
        importlib.import_module("readline")  # gives input() its history and arrow keys; Windows has its own
    while True:
        try:
            yield input("> ").strip()
        except EOFError:
            screen.say("")
            return
        except KeyboardInterrupt:
            screen.hint("\nCtrl-D leaves")


def _answer(terminal: Terminal, question: str) -> None:
    session, screen = terminal.session, terminal.screen
    messages = session.asked(question)
    stopped = False
    with terminal.client.stream(
        messages, preference=session.weights, model=session.model, system=session.system
    ) as stream:
        try:
            for piece in stream:
                screen.piece(piece)
        except KeyboardInterrupt:
            if not screen.interactive:
                raise
            stopped = True
        finally:
            # What came of an answer that was cut belongs to the conversation; a question without any does not.
            if stream.text:
                session.messages = [*messages, stream.message]
            if stream.text or stream.finish_reason:
                screen.end_line()
    screen.hint(" · ".join(_notes(stream, stopped=stopped)) + "\n")


def _notes(stream: ChatStream, *, stopped: bool) -> Iterator[str]:
    if stream.id is not None:
        yield shown(stream.preference)
    if stream.usage is not None:
        yield f"{stream.usage.completion_tokens} tokens"
    if stopped:
        yield "stopped"
    elif stream.finish_reason == "length":
        yield "cut at the limit of its length"


def _welcome(terminal: Terminal) -> None:
    names = ", ".join(terminal.session.space.names) or "no dimensions"
    terminal.screen.hint(f"{terminal.client.base_url}: {names}. /help lists the commands, Ctrl-D leaves.")
    if prompts := terminal.session.space.example_prompts:
        terminal.screen.hint(f"Ask, for example: {prompts[0]}")
