"""A run that is killed with SIGKILL at any moment and resumed gives the bytes of one that nobody killed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.golden_files import BASE

KILLS = int(os.environ.get("PANACEA_KILLS", "3"))
"""Moments to kill at: half of them by the clock, half right before a change of a file."""


@pytest.mark.slow
def test_a_run_that_is_killed_twice_and_resumed_gives_the_same_bytes(tmp_path: Path) -> None:
    objective = os.environ.get("PANACEA_KILLS_OBJECTIVE", "dpo --aggregation tchebycheff --accumulation 2").split()
    lines = [
        {"prompt": f"May I {what}?", "a": "Oh yes!" * n, "b": "No.", "better": {"warm": "a", "brief": "b"}}
        for n, what in enumerate(("go", "stay", "eat", "sleep", "sing", "read"), 1)
    ]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    # Lines of the log, measurements and checkpoints fall on different steps: multiples of 3, 5 and 8.
    schedule = {"steps": 60, "batch-size": 4, "save-steps": 8, "health-steps": 5, "held-out": 2, "device": "cpu"}
    options = [word for name, value in schedule.items() for word in (f"--{name}", str(value))]
    plan = {
        "folder": str(tmp_path),
        "arguments": ["train", "--model", str(BASE), "--data", str(data), *options, "--objective", *objective],
        "kills": KILLS,
        "seed": int(os.environ.get("PANACEA_KILLS_SEED", "0")),
    }
    (tmp_path / "plan.json").write_text(json.dumps(plan), "utf-8")
    command = [sys.executable, "-m", "tests.train.killed_runs", str(tmp_path / "plan.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)["results"]
    assert len(results) == KILLS
    for result in results:
        # A clock may strike after the end.
        assert result["ended"][0] < 0 or "after_s" in result["kill"], result
        assert result["ended"][-1] == 0, result
        assert result["differs"] == [], result
        assert result["left"] == [], result
