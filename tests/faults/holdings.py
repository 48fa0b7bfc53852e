"""What a server holds of the operating system, to see that a fault leaves nothing behind."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Holdings:
    """What this process holds. Sockets are among its files."""

    files: int
    children: int
    threads: int
    folders: int

    @classmethod
    def now(cls) -> "Holdings":
        tasks = Path("/proc/self/task")
        return cls(
            files=len(list(Path("/proc/self/fd").iterdir())),
            children=sum(len(path.read_text("ascii").split()) for path in tasks.glob("*/children")),
            threads=len(list(tasks.iterdir())),
            folders=len(list(Path(tempfile.gettempdir()).glob("panacea-*"))),
        )

    @classmethod
    def settled(cls) -> "Holdings":
        """What is held once the connections of clients that are served have closed."""
        last = cls.now()
        for _ in range(100):
            time.sleep(0.05)
            last, before = cls.now(), last
            if last == before:
                break
        return last
