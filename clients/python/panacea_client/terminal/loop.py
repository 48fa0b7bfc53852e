"""The loop that reads lines and prints answers."""

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
"""Exit code after Ctrl-C, as shells define it."""


def run(base_url: str | None, model: str | None, system: str | None, weights: Sequence[str]) -> int:
    """Answers lines until the input ends, and returns the exit code.

    Errors are printed and do not end the loop. If the input is not a terminal, the exit code is 1 after an error.
    `weights` are words in the syntax of `/set`.
    """
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        # Bytes that are not valid in this locale must not end the program.
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
                terminal.screen.hint("type /new to start a new conversation")
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
        importlib.import_module("readline")  # adds history and arrow keys to input(); Windows has its own
    while True:
        try:
            yield input("> ").strip()
        except EOFError:
            screen.say("")
            return
        except KeyboardInterrupt:
            screen.hint("\npress Ctrl-D to end the session")


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
            # A partial answer stays in the conversation. A question without any answer does not.
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
        yield "cut at the token limit"


def _welcome(terminal: Terminal) -> None:
    names = ", ".join(terminal.session.space.names) or "no dimensions"
    terminal.screen.hint(f"{terminal.client.base_url}: {names}. /help lists the commands. Ctrl-D ends the session.")
    if prompts := terminal.session.space.example_prompts:
        terminal.screen.hint(f"Ask, for example: {prompts[0]}")
