"""The images, as far as a machine without a Docker engine can tell: what would get into them, and that it runs."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Generator
from pathlib import Path
from urllib.parse import urlparse

import httpx2
import pytest

from tests.api.fake_engine import FakeEngine
from tests.api.serving import serving, wait_until
from tests.docker.dockerfile import (
    CONTEXT,
    DOCKERFILE,
    FOLDER,
    ROOT,
    STAGES,
    TARGETS,
    BuildContext,
    environment,
    last,
    lineage,
)

HADOLINT = Path(sys.executable).parent / "hadolint"


def test_hadolint_finds_nothing() -> None:
    result = subprocess.run([HADOLINT, DOCKERFILE], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "")


def test_images_are_pinned_by_a_tag_or_digest_and_are_all_the_same() -> None:
    """One Python for what is installed and for what runs it. The default has no digest; an argument gives one."""
    (image,) = {stage.base for stage in STAGES.values()} - set(STAGES)
    assert re.fullmatch(r"python:3\.\d+-slim-\w+(@sha256:[0-9a-f]{64})?", image)


def locked(name: str) -> dict[str, tuple[str, list[str]]]:
    """The packages of a lock: version and hashes."""
    text = (FOLDER / f"locks/{name}.txt").read_text("utf-8").replace("\\\n", " ")
    lines = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    return {
        requirement.partition("==")[0]: (requirement.partition("==")[2], [word for word in rest if word != ";"])
        for requirement, *rest in lines
    }


@pytest.mark.parametrize("name", ["build", *TARGETS])
def test_every_package_of_an_image_has_hashes_and_the_version_that_is_tested(name: str) -> None:
    pinned = dict(
        line.lower().replace("_", "-").split("==")
        for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
        if "==" in line
    )
    lock = locked(name)
    for package, (version, hashes) in lock.items():
        assert hashes, f"{package} has no hash"
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", each) for each in hashes), package
        # CUDA's own packages and Triton follow from the build of torch.
        assert package not in pinned or version.partition("+")[0] == pinned[package], package
    assert ("triton" in lock) == (name == "cuda")


@pytest.mark.parametrize("name", TARGETS)
def test_an_image_has_all_packages_that_the_project_names(name: str) -> None:
    """A dependency that is new needs `make locks`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    needed = {re.split(r"[>=\[; ]", each)[0] for each in project["dependencies"]}
    assert needed - set(locked(name)) == (set() if name == "cuda" else {"triton"})


@pytest.mark.parametrize("target", TARGETS)
def test_a_container_is_not_root(target: str) -> None:
    user, group = last(target, "USER").text.split(":")
    created = " ".join(instruction.text for instruction in lineage(target) if instruction.name == "RUN")
    assert int(user) > 0
    assert f"useradd --uid {user} " in created
    assert f"groupadd --gid {group} " in created


def test_what_is_copied_is_in_the_context_and_stages_come_before_they_are_used() -> None:
    seen: list[str] = []
    for stage in STAGES.values():
        for instruction in stage.instructions:
            if instruction.name == "COPY" and instruction.text.startswith("--from="):
                assert instruction.text.split()[0].removeprefix("--from=") in seen
            elif instruction.name == "COPY":
                *sources, _ = instruction.text.split()
                for source in sources:
                    assert list(CONTEXT.files(source)), f"{source} is not in the build context"
        assert stage.base in seen or ":" in stage.base
        seen.append(stage.name)


@pytest.mark.slow
def test_nothing_private_gets_into_the_context() -> None:
    assert {path.parts[0] for path in CONTEXT.files(".")} == {
        "LICENSE", "README.md", "pyproject.toml",
        "clients", "commands", "docker", "kernels", "lab", "server", "training",
    }  # fmt: skip
    for path in (".env", "docker/.env", ".git/config", "api_keys.txt", "runs/model.safetensors", ".venv/bin/python"):
        assert not CONTEXT.holds(path)
    assert not CONTEXT.holds("server/panacea/__pycache__/config.cpython-311.pyc")
    assert CONTEXT.holds("commands/panacea_commands/main.py")
    assert "docker/.env" in (ROOT / ".gitignore").read_text("utf-8").splitlines()


@pytest.mark.parametrize(
    ("rules", "held", "left_out"),
    [
        ("*\n!a", ["a", "a/b/c"], ["b", "ab", "b/a"]),
        ("a/*\n!a/b", ["a/b", "a/b/c", "b"], ["a/c", "a/c/d"]),
        ("**/x", ["a/xy"], ["x", "a/x", "a/b/x", "a/x/y"]),
        ("**/*.py[co]", ["a.py", "a.pyd"], ["a.pyc", "a/b.pyo"]),
        ("# x\n\nx?", ["x", "xyz"], ["xy"]),
        ("!a\n*", [], ["a", "b"]),
    ],
)
def test_rules_are_read_as_docker_reads_them(rules: str, held: list[str], left_out: list[str]) -> None:
    context = BuildContext(ROOT, rules)
    assert [path for path in held if not context.holds(path)] == []
    assert [path for path in left_out if context.holds(path)] == []


def test_no_instruction_holds_a_secret() -> None:
    for stage in STAGES.values():
        for instruction in stage.instructions:
            if instruction.name in ("ARG", "ENV"):
                assert not re.search(r"KEY|TOKEN|SECRET|PASSWORD", instruction.text, re.IGNORECASE)


def test_the_cuda_image_has_what_triton_compiles_with_and_finds_a_gpu() -> None:
    runs = " ".join(instruction.text for instruction in STAGES["cuda"].instructions if instruction.name == "RUN")
    assert {"gcc", "libc6-dev"} <= set(runs.split())
    assert "Python.h" in runs
    assert environment("cuda")["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"
    assert environment("cuda")["PANACEA_DEVICE"] == "cuda"
    assert "PANACEA_DEVICE" not in environment("cpu")


# What is installed, and that it runs.


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the context by the stage's own command."""
    build = tmp_path_factory.mktemp("build")
    for instruction in STAGES["wheel"].instructions:
        if instruction.name == "COPY":
            *sources, _ = instruction.text.split()
            for file in (file for source in sources for file in CONTEXT.files(source)):
                (build / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / file, build / file)
        elif instruction.name == "RUN" and not instruction.text.startswith("pip install "):
            command = instruction.text.split()
            assert command[0] == "python"
            subprocess.run([sys.executable, *command[1:]], cwd=build, check=True, capture_output=True)
    (wheel,) = (build / "dist").glob("*.whl")
    return wheel


_OF_THE_MACHINE = ("torch", "triton", "nvidia-", "cuda-")
"""Packages of a lock that depend on whether the machine has a GPU."""


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_each_targets_pip_lines_resolve(target: str, wheel: Path, tmp_path: Path) -> None:
    """In this environment, which was installed with the same constraints. Of the index only the address is read."""
    stage = STAGES[f"{target}-packages"]
    (index,) = (i.text.removeprefix("TORCH_INDEX=") for i in stage.instructions if i.name == "ARG")
    assert urlparse(index).hostname in ("pypi.org", "download.pytorch.org")
    copied = [i.text.split() for i in stage.instructions if i.name == "COPY"]
    assert copied == [[f"docker/locks/{target}.txt", "./lock.txt"], ["--from=wheel", "/build/dist", "dist"]]
    (tmp_path / "dist").symlink_to(wheel.parent)
    (tmp_path / "lock.txt").write_text(
        "".join(
            f"{package}=={version} {' '.join(hashes)}\n"
            for package, (version, hashes) in locked(target).items()
            if not package.startswith(_OF_THE_MACHINE)
        ),
        "utf-8",
    )
    commands = [i.text for i in stage.instructions if i.name == "RUN"]
    for command, installed in zip(commands, ("", f"panacea-server-{wheel.name.split('-')[1]}"), strict=True):
        pip, *arguments = shlex.split(
            command.replace("dist/*.whl", f"dist/{wheel.name}").replace("$TORCH_INDEX", index)
        )
        assert pip == "pip"
        result = subprocess.run(
            [sys.executable, "-m", "pip", *arguments, "--dry-run", "--no-index"],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        assert re.findall(r"^Would install (.*)$", result.stdout, re.MULTILINE) == ([installed] if installed else [])


@pytest.fixture(scope="module")
def container(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process in the CPU image: its own ENV, the wheel on its path, and no Triton."""
    root = tmp_path_factory.mktemp("container")
    site = root / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", site, wheel],
        check=True,
    )
    (root / "without/triton").mkdir(parents=True)
    (root / "without/triton/__init__.py").write_text("raise ImportError('not in this image')\n", "utf-8")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    variables = environment("cpu")
    return {
        **{name: value.replace("/cache", str(root / "cache")) for name, value in variables.items()},
        "PATH": f"{site}/bin:{Path(sys.executable).parent}:{os.defpath}",
        "PYTHONPATH": f"{root}/without:{site}",
        "HOME": str(root),
        "TMPDIR": str(root / "tmp"),
        "PANACEA_PORT": str(port),
        "PANACEA_THREADS": "1",
    }


def run(command: list[str], variables: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, env=variables, cwd="/", capture_output=True, text=True, check=False)


def health_check(variables: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """As the engine runs it, but for the file's place."""
    match = re.fullmatch(r"(?:--[\w-]+=\S+ )+CMD (\[.*\])", last("cpu", "HEALTHCHECK").text)
    assert match
    python, path = json.loads(match[1])
    (copied,) = (i.text.split()[0] for i in lineage("cpu") if i.name == "COPY" and i.text.endswith(f" {path}"))
    return run([python, str(ROOT / copied)], variables)


_READ_ONLY = """
set -e
mount --make-rprivate /
for place in / "$(findmnt --noheadings --output TARGET --target "$HOME")"; do mount -o remount,bind,ro "$place"; done
for folder in "$HOME/cache" "$TMPDIR"; do mount -t tmpfs tmpfs "$folder"; done
exec "$@"
"""
"""Runs a command as compose.yaml's `read_only` and `tmpfs` do: only the cache and the temporary folder are writable."""


@pytest.fixture(params=["writable", "read-only"])
def prefix(request: pytest.FixtureRequest, container: dict[str, str]) -> list[str]:
    """What runs a command, with all files writable, or as in compose.yaml."""
    for folder in ("cache", "tmp"):
        Path(container["HOME"], folder).mkdir(exist_ok=True)
    if request.param == "writable":
        return []
    command = ["unshare", "--mount", "sh", "-c", _READ_ONLY, "sh"]
    if shutil.which("unshare") is None or run([*command, "true"], container).returncode:
        pytest.skip("a read-only root needs Linux, util-linux and root's rights: run this test as root")
    assert run([*command, "touch", f"{container['HOME']}/file"], container).returncode == 1
    return command


@pytest.mark.slow
def test_the_images_command_serves_is_healthy_and_ends_in_good_order(
    container: dict[str, str], prefix: list[str]
) -> None:
    where = run(["python", "-c", "import panacea; print(panacea.__file__)"], container)
    assert where.stdout.startswith(container["PYTHONPATH"].split(":")[1])
    assert last("cpu", "EXPOSE").text == environment("cpu")["PANACEA_PORT"]
    assert health_check(container).returncode == 1  # nobody is there yet

    command = [*last("cpu", "ENTRYPOINT").words, *last("cpu", "CMD").words]
    process = subprocess.Popen(
        [*prefix, shutil.which(command[0], path=container["PATH"]) or "", *command[1:]],
        env=container, cwd="/", stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        wait_until(lambda: process.poll() is not None or health_check(container).returncode == 0, 120)
        with httpx2.Client(base_url=f"http://127.0.0.1:{container['PANACEA_PORT']}", timeout=60) as client:
            body = {"messages": [{"role": "user", "content": "How do I unblock a sink?"}], "max_tokens": 4}
            answer = client.post("/v1/chat/completions", json={**body, "response_format": {"type": "json_object"}})
            assert 1 <= answer.json()["usage"]["completion_tokens"] <= 4  # "{}" is complete
            assert client.get("/", headers={"host": "panacea:8000"}).text.startswith("<!doctype html>")
    finally:
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=20)
    assert process.returncode == 0
    lines = [json.loads(line) for line in log.splitlines()]
    assert any((line["level"], line["message"][:16]) == ("warning", "open to everyone") for line in lines)


@pytest.mark.slow
def test_the_images_entry_point_has_help_and_one_line_for_what_is_wrong(container: dict[str, str]) -> None:
    (entry,) = last("cpu", "ENTRYPOINT").words
    assert "panacea serve" in run([entry, "--help"], container).stdout
    wrong = run([entry, "serve", "--model", "/models/missing"], container)
    assert wrong.returncode == 2
    assert "/models/missing" in json.loads(wrong.stderr)["message"]


@pytest.fixture(params=[None, "panacea.example", "*", "panacea.example other.example"])
def hosts(request: pytest.FixtureRequest) -> Generator[tuple[str | None, int]]:
    """What PANACEA_ALLOWED_HOST says, and the port of a server that was told so."""
    value: str | None = request.param

    async def make_engine() -> FakeEngine:
        return FakeEngine()

    with serving(make_engine, allowed_hosts=("*",) if value is None else tuple(value.split())) as served:
        yield value, served.port


def test_the_health_check_asks_for_a_host_that_is_answered(hosts: tuple[str | None, int]) -> None:
    value, port = hosts
    variables = {"PATH": os.environ["PATH"], "PANACEA_PORT": str(port)}
    result = health_check(variables if value is None else {**variables, "PANACEA_ALLOWED_HOST": value})
    assert (result.returncode, result.stderr) == (0, "")


def test_the_health_check_says_what_is_wrong() -> None:
    async def make_engine() -> FakeEngine:
        return FakeEngine()

    with serving(make_engine, allowed_hosts=("other.example",)) as served:
        result = health_check({"PATH": os.environ["PATH"], "PANACEA_PORT": str(served.port)})
    assert (result.returncode, result.stderr) == (1, "/health answered 421\n")
    gone = health_check({"PATH": os.environ["PATH"], "PANACEA_PORT": str(served.port)})
    assert gone.returncode == 1
    assert "no answer on port" in gone.stderr
