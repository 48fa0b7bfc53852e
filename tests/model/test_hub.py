"""A hub id at a revision: real HTTP to a hub of a few lines."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Generator, Mapping

import pytest

from tests.command import run_panacea
from tests.fake_hub import REVISION, fake_hub
from tests.golden_files import ADAPTER, BASE

FIND = """
import sys
from panacea.errors import PanaceaError
from panacea.model.checkpoint import Checkpoint
try:
    found = Checkpoint.find(*(word or None for word in sys.argv[1:]))
    print(found.base.name, found.adapter and found.adapter.name)
except PanaceaError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Generator[Mapping[str, str]]:
    """The environment of a process whose hub has a base and an adapter."""
    folder = tmp_path_factory.mktemp("hub")
    shutil.copytree(ADAPTER, folder / "adapter")
    config = json.loads((ADAPTER / "adapter_config.json").read_text("utf-8"))
    config["base_model_name_or_path"] = "somebody/base"
    (folder / "adapter/adapter_config.json").write_text(json.dumps(config), "utf-8")
    with fake_hub({"somebody/adapter": folder / "adapter", "somebody/base": BASE}) as endpoint:
        yield {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "0"}


def find(environment: Mapping[str, str], model: str, adapter: str, revision: str, adapter_revision: str) -> str:
    """What is found, or the error, as a process prints it that has not read its environment yet."""
    command = [sys.executable, "-c", FIND, model, adapter, revision, adapter_revision]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return ran.stdout.strip()


@pytest.mark.slow
def test_a_tag_or_a_commit_gives_that_snapshot(hub: Mapping[str, str]) -> None:
    assert find(hub, "somebody/base", "", "v1.0", "") == f"{REVISION} None"
    assert find(hub, "", "somebody/adapter", REVISION, "v1.0") == f"{REVISION} {REVISION}"


@pytest.mark.slow
def test_a_commit_that_was_downloaded_is_found_without_the_hub(hub: Mapping[str, str]) -> None:
    find(hub, "somebody/base", "", REVISION, "")
    offline = {**hub, "HF_HUB_OFFLINE": "1"}
    assert find(offline, "somebody/base", "", REVISION, "") == f"{REVISION} None"
    assert "not in the hub's cache at revision v9" in find(offline, "somebody/base", "", "v9", "")


@pytest.mark.slow
def test_a_revision_that_does_not_exist_is_one_line_with_the_options_name(hub: Mapping[str, str]) -> None:
    said = find(hub, "somebody/base", "", "v2", "")
    assert said == "--revision v2: somebody/base has no such branch, tag or commit on the hub"
    said = find(hub, "", "somebody/adapter", "", "v2")
    assert said == "--adapter-revision v2: somebody/adapter has no such branch, tag or commit on the hub"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", str(BASE), "--revision", "v1"], f"--revision is for hub ids, but {BASE} is a folder"),
        (
            ["--adapter", str(ADAPTER), "--adapter-revision", "v1"],
            f"--adapter-revision is for hub ids, but {ADAPTER} is",
        ),
        (["--adapter", str(ADAPTER), "--revision", "v1"], "--revision is for hub ids, but"),
        (["--model", str(BASE), "--adapter-revision", "v1"], "--adapter-revision needs --adapter"),
        (["--revision", "v1"], "--revision is for hub ids, but"),
    ],
)
def test_a_revision_of_a_folder_is_one_line(arguments: list[str], message: str) -> None:
    done = run_panacea("serve", *arguments)
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert message in line
