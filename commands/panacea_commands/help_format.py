"""The form of `--help`: whole flags, paragraphs that fill their column, and defaults that tell something."""

import math
from collections.abc import Sequence
from typing import Any

from cyclopts.help import ColumnSpec, DefaultFormatter, HelpEntry, HelpPanel, InlineText, NameRenderer
from cyclopts.help.specs import get_default_parameter_columns
from rich.console import Console, ConsoleOptions
from rich.text import Text


class HelpFormatter(DefaultFormatter):
    """The usual form of `--help`. A docstring of several lines is one paragraph that fills its column."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        for entry in panel.entries:
            if isinstance(entry.description, InlineText) and isinstance(entry.description.primary_renderable, Text):
                words = entry.description.primary_renderable.plain.split()
                entry.description.primary_renderable = Text(" ".join(words))
        if panel.format == "command":
            super().__call__(console, options, panel)
        else:
            DefaultFormatter(column_specs=_columns)(console, options, panel)

    def render_description(self, console: Console, options: ConsoleOptions, description: Any) -> None:
        """A command's docstring: lines that begin with spaces stay as they are, other paragraphs fill the width."""
        if isinstance(description, InlineText) and isinstance(description.primary_renderable, Text):
            blocks = description.primary_renderable.plain.split("\n\n")
            filled = [block if block.startswith(" ") else " ".join(block.split()) for block in blocks]
            description.primary_renderable = Text("\n\n".join(filled))
        super().render_description(console, options, description)


def shown_default(default: Any) -> str | None:
    """A default as `--help` shows it. No value, no values and a switch that is off are not worth showing."""
    if default is None or default is False or default == ():
        return None
    return "on" if default is True else str(default)


def _columns(console: Console, options: ConsoleOptions, entries: Sequence[HelpEntry]) -> tuple[ColumnSpec, ...]:
    """The usual columns, with the first one as wide as the longest flag."""
    longest = max((len(name) for entry in entries for name in entry.names), default=0)
    width = max(math.ceil(console.width * 0.35), longest)
    names = ColumnSpec(NameRenderer(max_width=width), header="Option", style="cyclopts.name", max_width=width)
    usual = get_default_parameter_columns(console, options, list(entries))
    return tuple(names if column.header == names.header else column for column in usual)
