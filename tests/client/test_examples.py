"""The scripts in examples/ that ask a server run as their texts say."""

import csv
import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = ("quick_start", "compare", "sweep", "async_batch", "openai_client")

pytestmark = pytest.mark.slow


def example(
    name: str, url: str, *arguments: str, given: str = "", folder: Path | None = None, code: int = 0
) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", *arguments],
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=folder,
        env={**os.environ, "PANACEA_BASE_URL": url},
    )
    assert done.returncode == code, done.stderr
    return done


def test_quick_start(demo_url: str) -> None:
    output = example("quick_start", demo_url).stdout
    answers = dict(pairwise(output.splitlines()))
    assert answers["concise:"].startswith("  Soak the whetstone in water.")
    assert len(answers["helpful:"]) > len(answers["concise:"])
    assert "tokens, preference {'helpful': 0.333" in output


def test_compare(demo_url: str) -> None:
    output = example("compare", f"{demo_url}/v1", "How do I boil an egg?").stdout
    assert output.startswith("How do I boil an egg?\n")
    assert "careful (helpful 0.5, harmless 0.5): " in output
    assert "5 answers, " in output


def test_sweep(demo_url: str, tmp_path: Path) -> None:
    output = example("sweep", demo_url, "--steps", "3", "--out", "egg", folder=tmp_path).stdout
    assert output == "......\n6 answers: egg.csv, egg.png\n"
    with open(tmp_path / "egg.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["helpful"], row["concise"]) for row in rows[::5]] == [("1.0", "0.0"), ("0.0", "1.0")]
    assert all(row["answer"] for row in rows)
    assert (tmp_path / "egg.png").read_bytes().startswith(b"\x89PNG")


def test_sweep_without_matplotlib_says_what_to_install(demo_url: str, tmp_path: Path) -> None:
    (tmp_path / "matplotlib.py").write_text("raise ModuleNotFoundError(name='matplotlib')\n", "utf-8")
    done = subprocess.run(
        [sys.executable, EXAMPLES / "sweep.py"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=tmp_path,
        env={**os.environ, "PANACEA_BASE_URL": demo_url, "PYTHONPATH": str(tmp_path)},
    )
    assert (done.returncode, done.stderr) == (1, "the plot needs matplotlib: pip install matplotlib\n")


def test_async_batch(demo_url: str, tmp_path: Path) -> None:
    questions = ["How do I boil an egg?", "How do I plant bulbs?", "too long " * 3000]
    (tmp_path / "questions.txt").write_text("\n\n".join(questions), "utf-8")
    from_file = example("async_batch", demo_url, str(tmp_path / "questions.txt")).stdout
    piped = example("async_batch", demo_url, "-", given="\n".join(questions)).stdout
    lines = {line["question"]: line for line in map(json.loads, from_file.splitlines())}
    assert set(lines) == {question.strip() for question in questions}
    assert lines[questions[0]]["answer"]
    assert lines[questions[0]]["preference"] == {"helpful": 0.0, "harmless": 0.5, "concise": 0.5}
    assert lines[questions[2].strip()]["error"].startswith("400: ")
    assert sorted(piped.splitlines())[:2] == sorted(from_file.splitlines())[:2]


def test_openai_client(demo_url: str) -> None:
    output = example("openai_client", demo_url).stdout
    assert output.startswith("{'helpful': 0.66")
    assert "panacea-demo:base:\n" in output
    assert "panacea-demo:careful:\n" in output


@pytest.mark.parametrize("name", ["compare", "sweep"])
def test_an_example_without_a_server_says_where_it_looked(name: str, tmp_path: Path) -> None:
    done = example(name, "http://localhost:1", folder=tmp_path, code=1)
    assert done.stderr.startswith("no server answers at http://localhost:1")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_an_example_fits_on_a_screen_and_says_how_to_run_it(name: str) -> None:
    text = (EXAMPLES / f"{name}.py").read_text("utf-8")
    assert len(text.splitlines()) < 50
    assert f"python examples/{name}.py" in text
    assert "PANACEA_BASE_URL" in text
