"""What a line that begins with a slash does."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from panacea_client.client import Panacea
from panacea_client.terminal.screen import Screen
from panacea_client.terminal.session import InputError, Session


class Leave(Exception):  # noqa: N818
    """The person wants to go."""


@dataclass(frozen=True)
class Terminal:
    """What commands work with."""

    client: Panacea
    session: Session
    screen: Screen


@dataclass(frozen=True)
class Command:
    """`run` gets the text behind the command's name."""

    usage: str
    summary: str
    run: Callable[[Terminal, str], None]


def follow(terminal: Terminal, line: str) -> None:
    """Does what `line` says. Raises `InputError` if it says nothing that can be done, and `Leave`."""
    name, _, rest = line.partition(" ")
    command = COMMANDS.get(name)
    if command is None:
        raise InputError(f"there is no {name}; there are {', '.join(COMMANDS)}")
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
    terminal.screen.say("Ctrl-C stops an answer, Ctrl-D leaves. Anything else is a question.")


def _set(terminal: Terminal, rest: str) -> None:
    terminal.session.set_preference(rest.split())
    _preference(terminal, "")


def _preference(terminal: Terminal, _rest: str) -> None:
    space = terminal.session.space
    if not space.names:
        raise InputError("this server has a base model without adapter: it has no preferences")
    if terminal.session.weights is None:
        terminal.screen.say("the model's own:" if terminal.session.model else "the server's default:")
    weights = terminal.session.weights or _models_own(terminal)
    if weights is None:
        terminal.screen.say("the bare base model takes none")
        return
    terminal.screen.preference(weights, {each.name: each.description for each in space.dimensions})


def _models_own(terminal: Terminal) -> Mapping[str, float] | None:
    """What is used where no preference is set."""
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
        raise InputError("there is no question yet: ask one, or say /compare How do I boil an egg?")
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
    "/help": Command("/help", "what there is", _help),
    "/set": Command("/set NAME SHARE", "one dimension's share; or NAME WEIGHT NAME WEIGHT ..., or a preset", _set),
    "/preference": Command("/preference", "what the next answer will be like", _preference),
    "/presets": Command("/presets", "the named preferences", _presets),
    "/compare": Command("/compare [QUESTION]", "the last question, or this one, at every dimension", _compare),
    "/new": Command("/new", "begin a new conversation", _new),
    "/system": Command("/system [TEXT]", "set the system message, or take it away", _system),
    "/quit": Command("/quit", "leave", _quit),
}
