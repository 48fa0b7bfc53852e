"""Where an option's value comes from: a flag, else the environment, else a TOML file, else the declared default.

A command's options are the fields of dataclasses (see `panacea.config`). A field's name gives the flag, the variable
and the file's key; its docstring is the text of `--help`.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cyclopts import App, Argument, ArgumentCollection, Group, Parameter, Token
from cyclopts.config import Env

from panacea_commands.help_format import HelpFormatter, shown_default
from panacea_commands.option_values import read_config_file

_SWITCH = {"on": "true", "off": "false"}


FIELDS = Parameter(name="*")
"""The fields of a dataclass as options of the command's own panel."""


def new_app(name: str, help_epilogue: str = "", **settings: Any) -> App:
    """An app with this project's form of options and of `--help`."""
    return App(
        name,
        help_epilogue=help_epilogue,
        help_flags=("-h", "--help"),
        help_format="plaintext",
        help_formatter=HelpFormatter(),
        group_parameters=Group("Options", sort_key=0),
        default_parameter=Parameter(negative=(), allow_repeating=True, show_default=shown_default),
        suppress_keyboard_interrupt=False,
        **settings,
    )


def panel(title: str, **settings: Any) -> Parameter:
    """The fields of a dataclass as options with a panel of their own in `--help`."""
    return Parameter(name="*", group=Group.create_ordered(title), **settings)


class Environment(Env):
    """Variables with a prefix, like PANACEA_MAX_BATCH. An empty variable counts as unset."""

    def __call__(self, app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        for name, argument in _by_name(arguments).items():
            variable = self.prefix + name.upper()
            if value := os.environ.get(variable):
                _give(argument, argument.env_var_split(value), variable, "the environment")


@dataclass(frozen=True)
class ConfigFile:
    """The TOML file that `--config` names."""

    def __call__(self, app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        options = _by_name(arguments)
        files = options.pop("config").tokens
        if files:
            path = Path(files[-1].value)
            for name, value in read_config_file(path, options).items():
                values = value if isinstance(value, list) else [value]
                _give(options[name], [str(each) for each in values], name, str(path))


def _by_name(arguments: ArgumentCollection) -> dict[str, Argument]:
    """Each option under its flag's name with underscores."""
    named = {argument.name: argument for argument in arguments if argument.parse and not argument.children}
    return {flag.removeprefix("--").replace("-", "_"): argument for flag, argument in named.items()}


def _give(argument: Argument, values: list[str], keyword: str, source: str) -> None:
    """Sets the option, unless a source of higher rank has done so."""
    if not argument.tokens:
        for index, value in enumerate(values):
            plain = _SWITCH.get(value.lower(), value) if argument.hint is bool else value
            argument.append(Token(keyword=keyword, value=plain, source=source, index=index))
