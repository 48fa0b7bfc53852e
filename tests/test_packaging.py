"""What a user of the wheel gets."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_wheel_carries_the_demo_model_and_the_worlds_texts(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)], cwd=ROOT, check=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
        archive.extractall(tmp_path / "installed")
    for name in (
        "panacea/demo/base/config.json",
        "panacea/demo/base/model.safetensors",
        "panacea/demo/base/tokenizer.json",
        "panacea/demo/adapter/adapter_config.json",
        "panacea/demo/adapter/adapter_model.safetensors",
        "panacea/demo/adapter/evaluation.json",
        "panacea/page/index.html",
        "panacea/api/information/docs_page.css",
        "panacea/page/main.js",
        "panacea/page/components/app.js",
        "panacea/page/vendor/preact.js",
        "panacea/page/vendor/LICENSE.preact",
        "panacea/py.typed",
        "panacea_kernels/py.typed",
        "panacea_train/py.typed",
        "panacea_lab/world/texts/tasks_kitchen.toml",
        "panacea_commands/main.py",
        "panacea_train/charts/templates/charts.html.jinja",
        "panacea_train/report/templates/report.html.jinja",
        "panacea_train/report/templates/style.css",
    ):
        assert name in sizes, f"{name} is not in the wheel"
    assert sum(size for name, size in sizes.items() if name.startswith("panacea/demo/")) < 16 * 2**20
    assert not [name for name in sizes if not name.startswith(("panacea", "panacea_server"))]
    served = subprocess.run(
        [sys.executable, "-c", "from panacea.api.information.web_page import page_folder; print(page_folder())"],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(served.stdout.strip()) == tmp_path / "installed/panacea/page"


def test_the_clients_wheel_is_small_typed_and_needs_two_packages(tmp_path: Path) -> None:
    for kind in ("sdist", "wheel"):
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(tmp_path)],
            cwd=ROOT / "clients" / "python",
            check=True,
        )
    (wheel,) = tmp_path.glob("panacea_client-*.whl")
    assert len(list(tmp_path.glob("panacea_client-*.tar.gz"))) == 1
    assert wheel.stat().st_size < 100_000
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith("/METADATA"))
        (scripts,) = (archive.read(name).decode() for name in names if name.endswith("/entry_points.txt"))
    assert {"panacea_client/__init__.py", "panacea_client/py.typed", "panacea_client/terminal/loop.py"} < {*names}
    assert any(name.endswith("/LICENSE") for name in names)
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"panacea_client"}
    needed = re.findall(r"^Requires-Dist: ([\w-]+)[^;\n]*$", metadata, re.MULTILINE)
    assert sorted(needed) == ["httpx2", "pydantic"]
    assert "panacea-chat = panacea_client.cli:main" in scripts


def test_importing_the_client_brings_nothing_of_the_server() -> None:
    program = "import sys, panacea_client, panacea_client.cli; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "httpx2" in modules
    assert not {"torch", "transformers", "panacea", "panacea_kernels", "numpy", "rich", "httpx"} & {*modules}
