"""The folder of a result: complete or absent, one writer at a time, and nothing of a stranger's is ever lost."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from panacea.errors import ConfigError, OutputError
from panacea_train import folder_exchange
from panacea_train.output_folder import MODEL, new_folder, output_folder

SIGN = "adapter_config.json"


def content(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def made(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def write(
    out: Path, text: str = "mine", *, overwrite: bool = False, meanwhile: Callable[[Path], object] = lambda new: None
) -> None:
    """Makes `out` as a command does, and something else meanwhile."""
    with new_folder(out, overwrite=overwrite) as new:
        (new / SIGN).write_text(text)
        meanwhile(new)


def interrupt(new: Path) -> None:
    raise KeyboardInterrupt


def test_a_new_folder_appears_complete_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with pytest.raises(KeyboardInterrupt):
        write(out, "half", meanwhile=interrupt)
    assert list((tmp_path / "deep").iterdir()) == []
    with new_folder(out) as new:
        (new / SIGN).write_text("whole")
        assert not out.exists()
    assert content(tmp_path) == {f"deep/out/{SIGN}": "whole"}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("at_once", [True, False])
def test_a_folder_that_a_stranger_fills_meanwhile_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool, at_once: bool
) -> None:
    if not at_once:
        monkeypatch.setattr(folder_exchange, "_exchange_at_once", lambda *_: False)
    out = tmp_path / "out"
    with pytest.raises((ConfigError, OutputError), match="out"):
        write(out, overwrite=overwrite, meanwhile=lambda new: made(out, thesis__tex="a stranger's"))
    assert content(tmp_path) == {"out/thesis.tex": "a stranger's"}


@pytest.mark.parametrize("at_once", [True, False])
def test_what_a_stranger_adds_at_the_last_moment_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    """Between the second check and the exchange."""
    out = made(tmp_path / "out", adapter_config__json="old")
    exchange = folder_exchange.exchange

    def late(new: Path, target: Path) -> Path:
        if not (out / "thesis.tex").exists():
            made(out, thesis__tex="a stranger's")
        return exchange(new, target)

    monkeypatch.setattr("panacea_train.output_folder.exchange", late)
    if not at_once:
        monkeypatch.setattr(folder_exchange, "_exchange_at_once", lambda *_: False)
    with pytest.raises(OutputError, match="changed by somebody else"):
        write(out, overwrite=True)
    assert content(tmp_path) == {"out/adapter_config.json": "old", "out/thesis.tex": "a stranger's"}


def test_an_empty_folder_is_filled_and_a_result_is_replaced_on_request(tmp_path: Path) -> None:
    out = made(tmp_path / "out")
    with new_folder(out) as new:
        (new / SIGN).write_text("first")
    with pytest.raises(ConfigError, match="exists already; --overwrite replaces it"):
        write(out)
    with new_folder(out, overwrite=True) as new:
        (new / SIGN).write_text("second")
        assert content(out) == {SIGN: "first"}
    assert content(tmp_path) == {f"out/{SIGN}": "second"}


@pytest.mark.parametrize("stranger", ["thesis.tex", "photos/cat.jpg", "base/notes.odt", ".git/HEAD", "data.jsonl"])
def test_a_result_beside_which_a_stranger_keeps_files_is_not_replaced(tmp_path: Path, stranger: str) -> None:
    out = made(tmp_path / "out", adapter_config__json="old")
    (out / stranger).parent.mkdir(exist_ok=True)
    (out / stranger).write_text("a stranger's")
    before = content(tmp_path)
    with pytest.raises(ConfigError, match=r"holds .*, which is not part of an adapter or model, so it is not replaced"):
        write(out, overwrite=True)
    assert content(tmp_path) == before


def test_folders_that_others_use_are_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = made(tmp_path / "home" / "me", adapter_config__json="old")
    work = made(tmp_path / "work" / "here", adapter_config__json="old")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(work)
    (tmp_path / "link").symlink_to(work)
    before = content(tmp_path)
    for out in (Path("/"), Path("/proc"), home, home.parent, work, work.parent, Path(), Path("..")):
        with pytest.raises(ConfigError, match="is a folder that others use: name a new folder inside it"):
            write(out, overwrite=True)
    with pytest.raises(ConfigError, match="is a symbolic link: name the folder"):
        write(tmp_path / "link", overwrite=True)
    assert content(tmp_path) == before


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with new_folder(out) as new:
        (new / SIGN).write_text("first")
        for overwrite in (False, True):
            with pytest.raises(OutputError, match=r"another run writes to .*out now"):
                write(out, overwrite=overwrite)
        with new_folder(tmp_path / "other") as other:
            (other / SIGN).write_text("elsewhere")
    assert content(tmp_path) == {f"out/{SIGN}": "first", f"other/{SIGN}": "elsewhere"}


KILLED = """
import os, signal, sys
from pathlib import Path
from panacea_train.output_folder import new_folder
with new_folder(Path(sys.argv[1])) as new:
    (new / "adapter_config.json").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_run_left_is_told_and_deleted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", KILLED, out], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = (path for path in tmp_path.iterdir() if path.is_dir())
    foreign = made(tmp_path / ".out.panacea-backup", note="a stranger's")
    with new_folder(out) as new:
        (new / SIGN).write_text("whole")
    assert f"{left} was left by a run that was killed: deleted" in capsys.readouterr().err
    assert content(tmp_path) == {f"out/{SIGN}": "whole", f"{foreign.name}/note": "a stranger's"}


def test_a_result_that_a_killed_run_had_set_aside_comes_back(tmp_path: Path) -> None:
    out = tmp_path / "out"
    made(tmp_path / ".out.panacea-abcdefgh-old", adapter_config__json="old")
    said: list[str] = []
    with output_folder(out, overwrite=True, replaces=MODEL, say=said.append):
        assert content(out) == {SIGN: "old"}
    assert said == [f"{out} was set aside by a run that was killed: it is back"]


@pytest.mark.parametrize("at_once", [True, False])
def test_folders_are_exchanged_with_or_without_the_kernels_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    if not at_once:
        monkeypatch.setattr(folder_exchange, "_exchange_at_once", lambda *_: False)
    new, out = made(tmp_path / "new", file="new"), made(tmp_path / "out", file="old")
    old = folder_exchange.exchange(new, out)
    assert content(out) == {"file": "new"}
    assert content(old) == {"file": "old"}


def _full_disk(folder: Path) -> None:
    """As a full disk, for this process: a file of more than a thousand bytes fails."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    try:
        (folder / SIGN).write_bytes(bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


def _disappearing(folder: Path) -> None:
    (folder / SIGN).unlink(missing_ok=True)
    folder.rmdir()


@pytest.mark.parametrize(("fault", "words"), [(_full_disk, "File too large"), (_disappearing, "No such file")])
def test_what_cannot_be_written_is_one_line_and_leaves_nothing(
    tmp_path: Path, fault: Callable[[Path], None], words: str
) -> None:
    with pytest.raises(OutputError, match=f"out cannot be written: {words}"):
        write(tmp_path / "out", meanwhile=fault)
    assert list(tmp_path.iterdir()) == []


def test_names_are_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    with new_folder(tmp_path / ("ü" * 127)) as new:
        (new / SIGN).write_text("whole")
    assert len(content(tmp_path)) == 1
    for name in ("n" * 256, "n" * 100_000, "n/" * 5000):
        with pytest.raises(ConfigError, match="cannot be written: File name too long"):
            write(tmp_path / name)


def test_a_place_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a stranger's")
    os.mkfifo(tmp_path / "pipe")
    for name in ("file", "pipe"):
        with pytest.raises(ConfigError, match="is not an adapter or model, so it is not replaced"):
            write(tmp_path / name, overwrite=True)
        with pytest.raises(ConfigError, match=rf"{name}.*cannot be written: (Not a directory|File exists)"):
            write(tmp_path / name / "out")
