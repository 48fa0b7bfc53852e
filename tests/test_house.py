"""Names in the house: a type name stands for one thing, a file name says what is inside, and no source file is long."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = (
    "kernels/panacea_kernels",
    "server/panacea",
    "training/panacea_train",
    "lab/panacea_lab",
    "commands/panacea_commands",
    "clients/python/panacea_client",
)
PAGE = "clients/web/page"
CLIENT = "clients/python/panacea_client"
API = "server/panacea/api"
MOST_LINES = 400

MIRRORED_BY_THE_CLIENT = {
    # The client stands alone: it declares once more, under the same names, what a server sends and takes.
    "AssistantMessage",
    "Choice",
    "ChunkChoice",
    "Delta",
    "Evaluation",
    "EvaluationExample",
    "EvaluationExampleAnswer",
    "EvaluationPoint",
    "EvaluationSweep",
    "ModelList",
    "Preferences",
    "Readiness",
    "StreamOptions",
    "TextChoice",
    "Usage",
}
PUBLIC_NAMES_OF_THE_CLIENT = {
    # Documented names that users import from `panacea_client`; each is the client's side of the server's.
    "Dimension": "a dimension as GET /v1/preferences describes it",
    "PanaceaError": "base of all that the client raises",
    "Preference": "what a caller may pass as a preference",
    "RequestError": "the server refused the request",
}
TWINS = {("kernels/panacea_kernels/reference", "kernels/panacea_kernels/triton_kernels")}
"""Folders whose files come in pairs: each Triton kernel has its reference in torch under the same file name."""
FREE_FILE_NAMES = {"__init__.py", "__main__.py"}


def sources(folder: str, suffix: str = ".py") -> Iterator[Path]:
    found = sorted((ROOT / folder).rglob(f"*{suffix}"))
    assert found, f"{folder} has no {suffix} files"
    yield from (path.relative_to(ROOT) for path in found if "vendor" not in path.parts)


def declared_types(path: Path) -> Iterator[str]:
    """Classes, type aliases and type variables at the top of a module: names in CamelCase."""
    for node in ast.parse((ROOT / path).read_text("utf-8")).body:
        match node:
            case ast.ClassDef(name=name):
                yield name
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                if name.lstrip("_")[:1].isupper() and name != name.upper():
                    yield name
            case _:
                pass


def test_a_type_name_stands_for_one_thing() -> None:
    places: defaultdict[str, list[Path]] = defaultdict(list)
    for folder in PACKAGES:
        for path in sources(folder):
            for name in declared_types(path):
                places[name].append(path)
    allowed = MIRRORED_BY_THE_CLIENT | PUBLIC_NAMES_OF_THE_CLIENT.keys()
    several = {
        name: [str(path) for path in paths]
        for name, paths in places.items()
        if len(paths) > (2 if name in allowed else 1)
    }
    assert not several, "choose names that say which of them it is"
    for name in allowed:
        is_the_clients = [path.is_relative_to(CLIENT) for path in places[name]]
        assert sorted(is_the_clients) == [False, True], f"{name} is no name of client and server: take it off the list"


def test_the_client_mirrors_what_the_server_sends_and_takes() -> None:
    wire = {name for folder in (API, "server/panacea/evaluation.py") for name in _types_below(folder)}
    assert wire >= MIRRORED_BY_THE_CLIENT


def _types_below(place: str) -> Iterator[str]:
    paths = sources(place) if (ROOT / place).is_dir() else [Path(place)]
    for path in paths:
        yield from declared_types(path)


def test_no_source_file_is_longer_than_a_reader_can_hold() -> None:
    lengths = {
        str(path): len((ROOT / path).read_text("utf-8").splitlines())
        for folder, suffix in (*((folder, ".py") for folder in PACKAGES), (PAGE, ".js"))
        for path in sources(folder, suffix)
    }
    too_long = {path: lines for path, lines in lengths.items() if lines > MOST_LINES}
    assert not too_long, f"a file of more than {MOST_LINES} lines holds two things: split it"


def test_no_two_source_files_have_the_same_name() -> None:
    """The client and the page are apart: each of them is a distribution of its own, whose users see no other."""
    places: defaultdict[str, list[Path]] = defaultdict(list)
    for folder in PACKAGES:
        if folder != CLIENT:
            for path in sources(folder):
                if path.name not in FREE_FILE_NAMES:
                    places[path.name].append(path)
    several = {
        name: [str(path) for path in paths]
        for name, paths in places.items()
        if len(paths) > 1 and tuple(str(path.parent) for path in paths) not in TWINS
    }
    assert not several, "choose a name that says what is inside"
