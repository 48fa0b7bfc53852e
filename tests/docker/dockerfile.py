"""The Dockerfile and its build context, as far as they can be read without a Docker engine."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Template

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docker"
DOCKERFILE = FOLDER / "Dockerfile"


@dataclass(frozen=True)
class Instruction:
    """One of a stage's, its lines joined."""

    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """Of the JSON form."""
        words: list[str] = json.loads(self.text)
        return words


@dataclass(frozen=True)
class Stage:
    """From one FROM to the next."""

    name: str
    base: str
    """An image, or an earlier stage."""
    instructions: tuple[Instruction, ...]


def stages(text: str) -> dict[str, Stage]:
    """All stages of a Dockerfile, by name and in their order."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    found: dict[str, Stage] = {}
    defaults: dict[str, str] = {}  # of arguments for the bases
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if not line.strip():
            continue
        name, _, rest = line.partition(" ")
        if name == "FROM":
            base, _, stage = rest.partition(" AS ")
            found[stage] = Stage(stage, Template(base).substitute(defaults), ())
        elif not found:
            argument, _, value = rest.partition("=")
            assert name == "ARG"
            defaults[argument] = value
        else:
            last = next(reversed(found.values()))
            found[last.name] = Stage(last.name, last.base, (*last.instructions, Instruction(name, rest.strip())))
    return found


STAGES = stages(DOCKERFILE.read_text("utf-8"))
TARGETS = ("cpu", "cuda")


def lineage(target: str) -> list[Instruction]:
    """What makes an image, the first instruction first: the target's own behind those of the stages it builds on."""
    stage = STAGES[target]
    return [*(lineage(stage.base) if stage.base in STAGES else ()), *stage.instructions]


def last(target: str, name: str) -> Instruction:
    """The one that counts where each replaces the one before."""
    return [instruction for instruction in lineage(target) if instruction.name == name][-1]


def environment(target: str) -> dict[str, str]:
    """What ENV leaves. Values refer to PATH alone."""
    pairs = [
        pair.partition("=")
        for instruction in lineage(target)
        if instruction.name == "ENV"
        for pair in instruction.text.split()
    ]
    return {name: value for name, _, value in pairs}


class BuildContext:
    """The files that `.dockerignore` leaves for a build."""

    def __init__(self, root: Path, rules: str) -> None:
        self.root = root
        self._rules = [_Rule(line) for line in rules.splitlines() if line.strip() and not line.startswith("#")]

    def holds(self, path: str) -> bool:
        """Whether a file at this path gets into the context: the last rule for it or for a folder above it says so."""
        is_held = True
        for rule in self._rules:
            if rule.fits(path):
                is_held = rule.brings_back
        return is_held

    def files(self, source: str) -> Iterator[Path]:
        """Of the context, relative to its root: the file `source`, or all below the folder."""
        path = self.root / source
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            relative = file.relative_to(self.root)
            if file.is_file() and self.holds(relative.as_posix()):
                yield relative


class _Rule:
    def __init__(self, line: str) -> None:
        self.brings_back = line.startswith("!")
        pattern = re.escape(line.removeprefix("!").strip().strip("/"))
        for glob, expression in ((r"\*\*/", "(?:.*/)?"), (r"\*\*", ".*"), (r"\*", "[^/]*"), (r"\?", "[^/]")):
            pattern = pattern.replace(glob, expression)
        pattern = pattern.replace(r"\[", "[").replace(r"\]", "]")
        self._pattern = re.compile(f"{pattern}(?:/.*)?")

    def fits(self, path: str) -> bool:
        return self._pattern.fullmatch(path) is not None


CONTEXT = BuildContext(ROOT, (ROOT / ".dockerignore").read_text("utf-8"))
