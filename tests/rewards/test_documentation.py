"""docs/rewards.md says what is there, and its code runs."""

import re
import sys
from pathlib import Path

from panacea_train.rewards import read_reward
from panacea_train.rewards.reward_spec import KINDS
from tests.rewards.asked import Heard, prompt

PAGE = (Path(__file__).parents[2] / "docs" / "rewards.md").read_text("utf-8")
RULES, JUDGE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_every_kind_is_on_the_page_and_no_other() -> None:
    rows = re.findall(r"^\| `-?(\w+):.*\|$", PAGE, re.MULTILINE)
    assert set(rows) == set(KINDS)


def test_the_rules_of_the_page_run(tmp_path: Path) -> None:
    (tmp_path / "rules.py").write_text(RULES, "utf-8")
    asked = [prompt("How?", reference="so")]
    for function, expected in (("politeness", 0.25), ("correct", 1.0)):
        reward = read_reward(f"python:{tmp_path}/rules.py:{function}")
        assert reward.score(asked, ["Please do so now."], Heard()) == [expected]


def test_the_program_of_the_page_runs(tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text(JUDGE, "utf-8")
    reward = read_reward(f"command:{sys.executable} {tmp_path}/judge.py")
    assert reward.score([prompt("How?")] * 2, ["so so no", ""], Heard()) == [0.2, 0.0]
