"""Runs of `panacea train` that are killed at chosen moments, each in a fork of one process that has imported torch.

    python -m tests.train.killed_runs PLAN.json

The plan has `arguments` of the command without --out and --resume, a `folder`, a `seed` and a number of `kills`. It
prints a JSON object: for each kill what happened, and how the result differs from that of a run that nobody killed.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from panacea_commands import main as cli

FILE_EVENTS = {"open": 0, "os.mkdir": 0, "os.rename": 1, "os.remove": 0, "os.rmdir": 0}
"""Audit events of changes to files, and which argument is the path that is changed."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class FileChanges:
    """Counts this process's changes to files in a folder, and kills it right before one of them."""

    def __init__(self, folder: Path, kill_before: int | None, log: Path | None = None) -> None:
        self._folder, self._kill_before, self._log = str(folder), kill_before, log
        self._count = 0
        self.names: list[str] = []
        sys.addaudithook(self._heard)

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in FILE_EVENTS or (event == "open" and not (arguments[2] or 0) & WRITES):
            return
        path = arguments[FILE_EVENTS[event]]
        if not isinstance(path, str | bytes | os.PathLike) or self._folder not in os.fsdecode(path):
            return
        self._count += 1
        self.names.append(f"{event} {os.path.basename(os.fsdecode(path))}")
        if self._count == self._kill_before:
            os.kill(os.getpid(), signal.SIGKILL)


def run(arguments: Sequence[str], folder: Path, *, before_change: int | None = None, after_s: float = 0.0) -> Any:
    """The command in a fork. Returns its exit code or the signal that ended it, and what it wrote."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        silent = os.open(os.devnull, os.O_WRONLY)
        errors = os.open(folder / "errors.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(silent, 1)
        os.dup2(errors, 2)
        changes = FileChanges(folder / "runs", before_change)
        signal.setitimer(signal.ITIMER_REAL, after_s)  # SIGALRM has no handler here: the kernel ends the process
        code = cli.run(arguments)
        os.write(writer, json.dumps(changes.names).encode())
        os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        names = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status, json.loads(names or b"[]"), (folder / "errors.txt").read_text("utf-8", "replace")


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes().hex()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def finish(arguments: Sequence[str], folder: Path, out: Path, **kill: Any) -> Any:
    """Goes on with whatever the last process left, as a user would."""
    resume = ["--resume"] if out.with_name(f"{out.name}.training").exists() else []
    if not resume and out.exists():
        return 0, [], "finished"
    return run([*arguments, "--out", str(out), *resume], folder, **kill)


def main(plan: dict[str, Any]) -> dict[str, Any]:
    folder, arguments, chance = Path(plan["folder"]), plan["arguments"], random.Random(plan["seed"])
    (folder / "runs").mkdir()
    begun = time.monotonic()
    status, changes, errors = run([*arguments, "--out", str(folder / "runs" / "whole")], folder)
    lasted = time.monotonic() - begun
    if status:
        raise SystemExit(errors)
    expected = contents(folder / "runs" / "whole")
    checkpoint = [number for number, name in enumerate(changes, 1) if "trainer_state.json" in name]
    results: list[dict[str, Any]] = []
    for number in range(plan["kills"]):
        out = folder / "runs" / f"killed{number}"
        kill: dict[str, Any]
        if number == 0:  # a checkpoint that lacks its last file
            kill = {"before_change": chance.choice(checkpoint)}
        elif number % 2:
            kill = {"before_change": chance.randint(1, len(changes))}
        else:
            kill = {"after_s": chance.uniform(0.05, lasted)}
        first, _, _ = run([*arguments, "--out", str(out)], folder, **kill)
        second, _, _ = finish(arguments, folder, out, after_s=chance.uniform(0.05, lasted))
        last, _, errors = finish(arguments, folder, out)
        found = contents(out)
        results.append(
            {
                "kill": kill,
                "ended": [first, second, last],
                "errors": errors[-2000:] if last else "",
                "differs": sorted(
                    name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
                ),
                "left": sorted(
                    p.name
                    for p in (folder / "runs").iterdir()
                    if p.name.startswith((f".killed{number}.", f"killed{number}."))
                ),
            }
        )
    return {"changes": len(changes), "lasted_s": lasted, "results": results}


if __name__ == "__main__":
    import_module("panacea_train.training_run")  # torch and transformers, once for all forks
    sys.stdout.write(json.dumps(main(json.loads(Path(sys.argv[1]).read_text("utf-8")))))
