"""A server of the command takes over a key file that changes, and lets nobody in by mistake."""

from pathlib import Path

import pytest

from tests.api.serving import wait_until
from tests.command import run_panacea
from tests.command import serving as serving_command
from tests.golden_files import ADAPTER

OLD, NEW = "an-old-key-0123456789", "a-new-key-0123456789"


@pytest.mark.slow
def test_a_key_file_that_changes_is_in_use_without_a_restart(tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text(f'[[key]]\nname = "old"\nkey = "{OLD}"\n', "utf-8")
    # The test asks with a wrong key until it is a right one.
    arguments = ("--adapter", str(ADAPTER), "--api-key-file", str(keys), "--max-wrong-keys", "1000000")
    with serving_command(*arguments) as (_, client):

        def status(key: str) -> int:
            return client.get("/v1/models", headers={"authorization": f"Bearer {key}"}).status_code

        assert (status(OLD), status(NEW)) == (200, 401)
        keys.write_text(f'[[key]]\nname = "new"\nkey = "{NEW}"\n', "utf-8")
        wait_until(lambda: status(NEW) == 200, 30)
        assert status(OLD) == 401
        keys.write_text("", "utf-8")
        keys.unlink()
        assert client.get("/v1/models").status_code == 401


def test_a_bad_key_file_ends_the_command_with_one_line_and_no_key(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"{OLD}\n# twice\n{OLD}\n", "utf-8")
    finished = run_panacea("serve", "--adapter", str(ADAPTER), "--api-key-file", str(keys))
    assert finished.code == 2
    assert f"--api-key-file {keys}, line 3: its key is the one of line 1" in finished.err
    assert len(finished.err.splitlines()) == 1
    assert OLD not in finished.err
