"""What a user of the wheel gets."""

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
    for name in (
        "panacea/demo/base/config.json",
        "panacea/demo/base/model.safetensors",
        "panacea/demo/base/tokenizer.json",
        "panacea/demo/adapter/adapter_config.json",
        "panacea/demo/adapter/adapter_model.safetensors",
        "panacea/demo/adapter/evaluation.json",
        "panacea/py.typed",
        "panacea_kernels/py.typed",
        "panacea_train/py.typed",
        "panacea_train/world/texts/tasks_kitchen.toml",
    ):
        assert name in sizes, f"{name} is not in the wheel"
    assert sum(size for name, size in sizes.items() if name.startswith("panacea/demo/")) < 16 * 2**20
    assert not [name for name in sizes if not name.startswith(("panacea", "panacea_server"))]
