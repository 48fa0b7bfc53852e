"""A server on a Unix socket: the file, and what must not be replaced."""

import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from panacea.errors import ConfigError
from panacea.unix_socket import unix_listener
from tests.command import run_panacea


def test_clients_connect_and_the_file_is_gone_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with unix_listener(path) as listener, socket.socket(socket.AF_UNIX) as client:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        client.connect(str(path))
        accepted, _ = listener.accept()
        accepted.close()
    assert not path.exists()


def test_what_a_killed_server_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    script = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()"
    subprocess.run([sys.executable, "-c", script, path], check=True)
    assert path.is_socket()
    with unix_listener(path), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_socket_that_another_server_listens_on_stays(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with unix_listener(path):
        with pytest.raises(ConfigError, match="another program listens there"), unix_listener(path):
            pass
        assert path.is_socket()


def test_another_servers_socket_is_not_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with unix_listener(path):
        path.unlink()
        with unix_listener(path) as second:
            second_file = path.stat().st_ino
            assert second.fileno() >= 0
            path.rename(tmp_path / "kept")
            (tmp_path / "kept").rename(path)
            assert path.stat().st_ino == second_file
        path.touch()
    assert path.exists()


@pytest.mark.parametrize("kind", ["file", "folder", "link to a file"])
def test_anything_but_a_socket_is_refused_and_stays(tmp_path: Path, kind: str) -> None:
    path, other = tmp_path / "socket", tmp_path / "other"
    other.write_text("mine", "utf-8")
    if kind == "folder":
        path.mkdir()
    elif kind == "file":
        path.write_text("mine", "utf-8")
    else:
        path.symlink_to(other)
    with pytest.raises(ConfigError, match="exists and is not a socket"), unix_listener(path):
        pass
    assert path.exists()
    assert other.read_text("utf-8") == "mine"


@pytest.mark.parametrize(
    ("path", "reason"),
    [("missing/socket", "no such file"), ("a" * 300, "too long"), ("a" * 120, "too long")],
)
def test_a_path_that_cannot_be_is_one_line(path: str, reason: str, tmp_path: Path) -> None:
    done = run_panacea("serve", "--unix-socket", str(tmp_path / path))
    assert done.code == 2
    assert reason in done.err
    assert len(done.err.splitlines()) == 1
