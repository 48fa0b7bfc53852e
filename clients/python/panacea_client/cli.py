"""The `panacea-chat` command."""

import argparse
import os
import sys
from importlib.metadata import version


def main() -> None:
    """The entry point. Exit codes: 1 for a failure, 2 for wrong arguments, 130 for Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="panacea-chat",
        description="Chat with a Panacea server. The API key is read from PANACEA_API_KEY.",
        epilog="Questions can also come from a pipe: echo 'How do I boil an egg?' | panacea-chat --set concise=1",
    )
    parser.add_argument(
        "--base-url", metavar="URL", help="URL of the server (default: PANACEA_BASE_URL, else http://localhost:8000)"
    )
    parser.add_argument("--model", metavar="ID", help="model id on the server")
    parser.add_argument("--system", metavar="TEXT", help="system message")
    parser.add_argument(
        "--set", metavar="NAME=WEIGHT", action="append", default=[], help="weight of a dimension; may be repeated"
    )
    parser.add_argument("--version", action="version", version=f"panacea-chat {version('panacea-client')}")
    arguments = parser.parse_args()
    try:
        from panacea_client.terminal.loop import run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "rich":
            raise
        parser.exit(1, "panacea-chat needs rich: pip install 'panacea-client[cli]'\n")
    weights = [word for pair in arguments.set for word in pair.split("=")]
    try:
        sys.exit(run(arguments.base_url, arguments.model, arguments.system, weights))
    except BrokenPipeError:
        # The reader of the pipe has ended, as in `panacea-chat | head -1`. At exit, Python would report it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
