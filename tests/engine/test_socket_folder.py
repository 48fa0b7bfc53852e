"""The folder of the sockets: it goes with its owner, and nobody removes another's."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from panacea.engine.socket_folder import socket_folder

KILLED = """
import os, signal
from panacea.engine.socket_folder import socket_folder
with socket_folder() as folder:
    (folder / "commands").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def leave_one_behind(place: Path) -> Path:
    before = set(place.iterdir())
    subprocess.run([sys.executable, "-c", KILLED], env={**os.environ, "TMPDIR": str(place)}, check=False)
    (left,) = set(place.iterdir()) - before
    return left


def test_only_this_user_may_enter_it_and_it_goes_at_the_end(place: Path) -> None:
    with socket_folder() as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert folder.parent == place
    assert not list(place.iterdir())


def test_what_a_killed_process_left_goes_at_the_next_start_and_the_living_keep_theirs(place: Path) -> None:
    with socket_folder() as first:
        left = leave_one_behind(place)
        with socket_folder() as second:
            assert not left.exists()
            assert set(place.iterdir()) == {first, second}


def test_what_is_not_surely_ours_stays(place: Path) -> None:
    (leave_one_behind(place) / "work").touch()
    leave_one_behind(place).chmod(0o755)
    lock = leave_one_behind(place) / "lock"
    lock.unlink()
    os.mkfifo(lock)
    (place / "panacea-nothing0").mkdir()
    target = leave_one_behind(place).rename(place / "elsewhere")
    (place / "panacea-link0000").symlink_to(target)
    (place / "panacea-file0000").touch()
    before = sorted(place.rglob("*"))
    with socket_folder():
        pass
    assert sorted(place.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user; run the tests as root")
def test_another_users_folder_stays(place: Path) -> None:
    left = leave_one_behind(place)
    os.chown(left, 12345, 12345)
    with socket_folder():
        assert left.exists()


def test_servers_that_start_at_the_same_time_leave_each_other_alone() -> None:
    lost: list[Path] = []

    def start_often() -> None:
        for _ in range(150):
            with socket_folder() as folder:
                (folder / "commands").touch()
                if not (folder / "lock").exists():
                    lost.append(folder)

    threads = [threading.Thread(target=start_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not lost
