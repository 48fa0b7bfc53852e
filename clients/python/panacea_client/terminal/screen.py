"""The output of the terminal client, to a terminal or a pipe."""

import sys
import unicodedata
from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from panacea_client.answers import ChatAnswer

_BAR_WIDTH = 24


class Screen:
    """Prints answers and results to standard output, and errors to standard error. Hints only go to a terminal."""

    def __init__(self) -> None:
        self._out = Console(highlight=False, markup=False, emoji=False)
        self._err = Console(highlight=False, markup=False, emoji=False, stderr=True)
        self.interactive = sys.stdin.isatty() and self._out.is_terminal

    def piece(self, text: str) -> None:
        """Prints a piece of an answer."""
        self._out.print(Text(printable(text)), end="", soft_wrap=True)

    def end_line(self) -> None:
        """Ends the line after an answer's last piece."""
        self._out.print()

    def say(self, text: str) -> None:
        """Prints the result of a command."""
        self._out.print(Text(printable(text)), soft_wrap=True)

    def hint(self, text: str) -> None:
        """Prints a hint, only to a terminal."""
        if self.interactive:
            self._out.print(Text(printable(text), "dim"))

    def complain(self, text: str) -> None:
        """Prints an error."""
        self._err.print(Text(printable(text), "red"), soft_wrap=True)

    def preference(self, weights: Mapping[str, float], descriptions: Mapping[str, str]) -> None:
        """Prints weights with sum 1 as bars."""
        table = Table.grid(padding=(0, 2))
        for name, weight in weights.items():
            bar = "━" * round(weight * _BAR_WIDTH)
            table.add_row(
                printable(name), Text(bar, "cyan"), f"{weight:.2f}", Text(printable(descriptions[name]), "dim")
            )
        self._out.print(table)

    def side_by_side(self, titles: Sequence[str], answers: Sequence[ChatAnswer]) -> None:
        """Prints answers in columns, or one below the other to a pipe."""
        if not self.interactive:
            for title, answer in zip(titles, answers, strict=True):
                self.say(f"# {title}\n{answer.text}\n")
            return
        table = Table(box=box.SIMPLE_HEAD, expand=True, padding=(0, 1))
        for title, answer in zip(titles, answers, strict=True):
            words = len(answer.text.split())
            table.add_column(Text(f"{printable(title)}\n{words} words", "bold"), ratio=1)
        table.add_row(*(Text(printable(answer.text)) for answer in answers))
        self._out.print(table)


def printable(text: str) -> str:
    """The text without control characters, which could move the cursor or change the terminal."""
    return "".join(each for each in text if each in "\n\t" or unicodedata.category(each) != "Cc")
