"""The `panacea` command: what its command groups are, and how an error ends it."""

import logging
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import NoReturn

from cyclopts import CycloptsError, MissingArgumentError, UnusedCliTokensError

from panacea.errors import EngineDeadError, OptionError, OutputError, PanaceaError
from panacea.logs import flush_logs, logs_json
from panacea_commands.bench import bench_app
from panacea_commands.convert import convert_app
from panacea_commands.evaluate import eval_app
from panacea_commands.export import export_app
from panacea_commands.inspection import inspect_app
from panacea_commands.option_sources import new_app
from panacea_commands.serve import serve_app
from panacea_commands.train import train_app

app = new_app(
    "panacea",
    help="Serve language models whose alignment each request chooses for itself.",
    help_epilogue="Start with: panacea serve",
    version=lambda: f"panacea {version('panacea-server')}",
)
for rank, command in enumerate((serve_app, train_app, eval_app, convert_app, export_app, inspect_app, bench_app)):
    command.sort_key = rank
    app.command(command)

_HELP_ALONE: Sequence[list[str]] = ([], ["train"], ["bench"], ["convert"])
"""What shows help, because there is nothing to do without a command or an option."""

MOST_CHARACTERS = 2000
"""Most characters of an error's line. It may repeat an argument, which may be of any length."""

MOST_ARGUMENTS = 10_000
"""The parser's time grows with their square."""

logger = logging.getLogger("panacea")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The entry point. Ends the process: 0 for success, 2 for a user's error, 130 for Ctrl-C.

    1 is for what the user's words are not to blame for: a dead engine, a full disk, a folder that another run uses.

    An error is one line on standard error, or one JSON line when the logs are JSON.
    """
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Runs a command and returns the exit code."""
    if len(arguments) > MOST_ARGUMENTS:
        return _complain(f"{len(arguments):,} arguments are more than {MOST_ARGUMENTS:,}: give fewer", 2)
    if list(arguments) in _HELP_ALONE:
        app.help_print(list(arguments))
        return 2
    try:
        code = app(
            list(arguments),
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
    except KeyboardInterrupt:
        return _complain("interrupted", 130)
    except (EngineDeadError, OutputError) as error:
        return _complain(str(error), 1)
    except OptionError as error:
        return _complain(f"--{error.option.replace('_', '-')} {error.problem}", 2)
    except PanaceaError as error:
        return _complain(str(error), 2)
    except MemoryError:
        return _complain("this needs more memory than there is", 1)
    except OSError as error:
        return _complain(f"{error.filename or 'a file'} cannot be used: {error.strerror or error}", 1)
    except CycloptsError as error:
        return _complain(_reason(error), 2)
    finally:
        flush_logs()
    return code if isinstance(code, int) else 0


def _reason(error: CycloptsError) -> str:
    """What is wrong with the arguments, and what to do."""
    shown = f"{' '.join(('panacea', *(error.command_chain or ())))} --help shows all options"
    if isinstance(error, MissingArgumentError) and error.keyword is not None:
        return f"{error.keyword} needs a value; {shown}"
    if isinstance(error, MissingArgumentError | UnusedCliTokensError) and error.unused_tokens:
        return f"unknown argument {error.unused_tokens[0]!r}; {shown}"
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        return f"{error.argument.name} is missing; {shown}"
    return str(error)


def _complain(message: str, code: int) -> int:
    line = " ".join(message.split())
    if len(line) > MOST_CHARACTERS:
        half = MOST_CHARACTERS // 2
        line = f"{line[:half]} ... {line[-half:]}"
    if logs_json():
        logger.critical(line)
    else:
        print(f"panacea: error: {line}", file=sys.stderr)
    return code
