"""The commands of the terminal client: lines that begin with a slash."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from panacea_client.client import Panacea
from panacea_client.terminal.screen import Screen
from panacea_client.terminal.session import InputError, Session


class Leave(Exception):  # noqa: N818
    """Ends the session."""


@dataclass(frozen=True)
class Terminal:
    """The objects that commands use."""

    client: Panacea
    session: Session
    screen: Screen


@dataclass(frozen=True)
class ChatCommand:
    """A command. `run` gets the text after the command's name."""

    usage: str
    summary: str
    run: Callable[[Terminal, str], None]


def follow(terminal: Terminal, line: str) -> None:
    """Runs the command in `line`. Raises `InputError` if the line is not a valid command, and `Leave` for /quit."""
    name, _, rest = line.partition(" ")
    command = COMMANDS.get(name)
    if command is None:
        raise InputError(f"unknown command {name}; the commands are {', '.join(COMMANDS)}")
    command.run(terminal, rest.strip())


def shown(weights: Mapping[str, float] | None) -> str:
    """A preference in one line."""
    if weights is None:
        return "base model"
    return ", ".join(f"{name} {weight:.2f}".removesuffix(".00") for name, weight in weights.items() if weight)


def _help(terminal: Terminal, _rest: str) -> None:
    width = max(len(command.usage) for command in COMMANDS.values())
    for command in COMMANDS.values():
        terminal.screen.say(f"{command.usage:<{width}}  {command.summary}")
    terminal.screen.say("Ctrl-C stops an answer. Ctrl-D ends the session. Any other line is a question.")


def _set(terminal: Terminal, rest: str) -> None:
    terminal.session.set_preference(rest.split())
    _preference(terminal, "")


def _preference(terminal: Terminal, _rest: str) -> None:
    space = terminal.session.space
    if not space.names:
        raise InputError("this server has a base model without adapter, so it has no preferences")
    if terminal.session.weights is None:
        terminal.screen.say("preference of the model id:" if terminal.session.model else "the server's default:")
    weights = terminal.session.weights or _models_own(terminal)
    if weights is None:
        terminal.screen.say("none: this is the bare base model")
        return
    terminal.screen.preference(weights, {each.name: each.description for each in space.dimensions})


def _models_own(terminal: Terminal) -> Mapping[str, float] | None:
    """The weights that the server uses if no preference is set."""
    model = terminal.session.model
    if model is None:
        return terminal.session.space.default
    return next((each.preference for each in terminal.client.models() if each.id == model), None)


def _presets(terminal: Terminal, _rest: str) -> None:
    presets = {"default": terminal.session.space.default} | terminal.session.space.presets
    width = max(map(len, presets))
    for name, weights in presets.items():
        terminal.screen.say(f"{name:<{width}}  {shown(weights)}")


def _compare(terminal: Terminal, rest: str) -> None:
    session = terminal.session
    if not rest and session.last_question is None:
        raise InputError("there is no question yet: ask one, or type /compare How do I boil an egg?")
    vertices = session.vertices()
    messages = session.asked(rest) if rest else session.before_last_question()
    answers = terminal.client.compare(
        messages, [session.weights, *vertices], model=session.model, system=session.system
    )
    terminal.screen.side_by_side([shown(answer.preference) for answer in answers], answers)


def _new(terminal: Terminal, _rest: str) -> None:
    terminal.session.messages.clear()
    terminal.screen.hint("a new conversation")


def _system(terminal: Terminal, rest: str) -> None:
    terminal.session.system = rest or None
    terminal.screen.hint(f"system: {rest}" if rest else "no system message")


def _quit(_terminal: Terminal, _rest: str) -> None:
    raise Leave


COMMANDS = {
    "/help": ChatCommand("/help", "show the commands", _help),
    "/set": ChatCommand(
        "/set NAME SHARE", "set a dimension's share, or NAME WEIGHT NAME WEIGHT ..., or a preset", _set
    ),
    "/preference": ChatCommand("/preference", "show the preference of the next answer", _preference),
    "/presets": ChatCommand("/presets", "show the presets", _presets),
    "/compare": ChatCommand("/compare [QUESTION]", "answer the last or this question at every dimension", _compare),
    "/new": ChatCommand("/new", "start a new conversation", _new),
    "/system": ChatCommand("/system [TEXT]", "set or remove the system message", _system),
    "/quit": ChatCommand("/quit", "end the session", _quit),
}
