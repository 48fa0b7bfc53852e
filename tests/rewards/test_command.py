"""Rewards from other programs: good ones, and all the ways in which one can fail."""

import os
import re
import select
import shlex
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from panacea_train.rewards import RewardError, read_reward
from panacea_train.rewards.command_reward import CommandReward
from tests.api.serving import wait_until
from tests.rewards.asked import Heard, prompt

LENGTHS = "import json, sys\nfor line in sys.stdin: print(len(json.loads(line)['answer']) / 2)"


def python(source: str) -> str:
    """The spec of a Python program."""
    return f"command:{shlex.join([sys.executable, '-c', source])}"


def shell(script: str, silence_s: float = 600.0) -> CommandReward:
    return CommandReward("command:judge", ["sh", "-c", script], silence_s)


def scores(reward: str | CommandReward, *answers: str) -> list[float]:
    loaded = read_reward(reward) if isinstance(reward, str) else reward
    return loaded.score([prompt("How?")] * len(answers), answers, Heard())


def test_a_program_that_answers_line_by_line() -> None:
    heard = Heard()
    answers = ["a", "", "line\nbreak \u2028 and \u00e9"]
    assert read_reward(python(LENGTHS)).score([prompt("How?")] * 3, answers, heard) == [0.5, 0.0, 9.0]
    assert heard.calls == [1, 1, 1]


def test_a_program_sees_prompt_messages_answer_and_fields(tmp_path: Path) -> None:
    asked = [prompt("How?", "Be brief.", reference="so", weight=[1, None]), prompt("Why?")]
    source = f"import sys\nlines = sys.stdin.readlines()\nopen({str(tmp_path / 'seen')!r}, 'w').writelines(lines)\n"
    assert read_reward(python(source + "print('1\\n2')")).score(asked, ["Thus.", "\u00e9"], Heard()) == [1.0, 2.0]
    assert (tmp_path / "seen").read_text("utf-8").splitlines() == [
        '{"prompt":"How?","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"How?"}],'
        '"answer":"Thus.","fields":{"reference":"so","weight":[1,null]}}',
        '{"prompt":"Why?","messages":[{"role":"user","content":"Why?"}],"answer":"\u00e9","fields":{}}',
    ]


def test_notations_of_numbers_and_a_last_line_without_an_end() -> None:
    assert scores(shell(r"printf '1\n -2.5 \r\n3e2\n.5'"), *"abcd") == [1.0, -2.5, 300.0, 0.5]


def test_no_answers_run_nothing() -> None:
    assert scores(shell("exit 3")) == []


@pytest.mark.parametrize("order", ["read; write", "write; read"])
def test_neither_side_waits_for_the_other_however_much_there_is(order: str) -> None:
    # Both directions are several times what a pipe holds.
    source = f"""
import sys
def read(): assert len(sys.stdin.buffer.readlines()) == 5000
def write(): sys.stdout.write("".join(f"{{n:0100}}\\n" for n in range(5000))); sys.stdout.flush()
{"; ".join(f"{step}()" for step in order.split("; "))}
"""
    assert scores(python(source), *["an answer " * 20] * 5000) == [float(n) for n in range(5000)]


def test_a_program_need_not_read_to_the_end() -> None:
    answers = ["x" * 100_000] * 20
    assert scores(shell("seq 20"), *answers) == [float(n) for n in range(1, 21)]


def test_scores_are_heard_while_the_program_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for a file that only exists when its first score was heard, without flushing what it prints."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    go_on = tmp_path / "go_on"

    def report(count: int) -> None:
        go_on.touch()

    source = f"import os, time\nprint(1)\nwhile not os.path.exists({str(go_on)!r}): time.sleep(0.01)\nprint(2)"
    assert read_reward(python(source)).score([prompt("How?")] * 2, ["a", "b"], report) == [1.0, 2.0]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "echo 1; echo 'no such model' >&2; exit 3",
            "ended with exit code 3 after 1 of 2 scores; its last words: no such",
        ),
        ("printf '1\\n2\\n'; exit 1", "ended with exit code 1 after 2 of 2 scores"),
        ("kill -9 $$", "was killed by SIGKILL after 0 of 2 scores"),
        ("echo 1", "wrote 1 numbers for 2 answers"),
        ("true", "wrote 0 numbers for 2 answers"),
        ("cat", 'wrote "{"prompt":"How?",'),
        ("echo 1; echo; echo 2", 'wrote "" on line 2, not a number'),
        ("echo 1; echo good", 'wrote "good" on line 2, not a number'),
        ("echo '0.5 0.7'", 'wrote "0.5 0.7" on line 1, not a number'),
        ("echo 1; echo nan", 'gave nan, which is not a finite number, for the answer "b" to "How?"'),
        ("echo 1e999", 'gave inf, which is not a finite number, for the answer "a" to "How?"'),
        ("yes 1", "wrote more lines than the 2 answers it got"),
        ("seq 3", "wrote more lines than the 2 answers it got"),
        ("cat /dev/zero", 'wrote "\N{REPLACEMENT CHARACTER}'),
        (r"printf '\377\n'", 'wrote "\N{REPLACEMENT CHARACTER}" on line 1, not a number'),
        ("exec >&-; exit 4", "ended with exit code 4 after 0 of 2 scores"),
    ],
)
def test_a_program_that_fails_is_told_in_one_line(script: str, message: str) -> None:
    with pytest.raises(RewardError, match=re.escape(f"command:judge {message}")) as raised:
        scores(shell(script), "a", "b")
    assert "\n" not in str(raised.value)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 300


def test_a_python_programs_own_exception_is_its_last_word() -> None:
    with pytest.raises(RewardError, match=r"exit code 1 after 0 of 1 scores; its last words: KeyError: 'answers'"):
        scores(python(LENGTHS.replace("answer", "answers")), "a")


def test_much_on_standard_error_blocks_nothing() -> None:
    assert scores(shell("seq 100000 >&2; echo 1"), "a") == [1.0]


@contextmanager
def fifo(folder: Path) -> Generator[tuple[Path, int]]:
    """A named pipe that a program and its children hold open as long as they live."""
    path = folder / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        yield path, reader
    finally:
        os.close(reader)


def nobody_lives(reader: int) -> bool:
    return bool(select.select([reader], [], [], 60)[0]) and not os.read(reader, 1)


def test_a_silent_program_is_ended_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time stands still until its first score is heard, and flies from then on."""
    heard = Heard()
    clock = count(step=1000)
    monkeypatch.setattr("panacea_train.rewards.command_reward.monotonic", lambda: next(clock) if heard.total else 0)
    with fifo(tmp_path) as (path, reader):
        silent = shell(f"exec 3>{path}; echo waiting >&2; echo 1; sleep 600 & wait")
        with pytest.raises(RewardError, match=r"silent for 600 s after 1 of 2 scores; its last words: waiting"):
            silent.score([prompt("How?")] * 2, ["a", "b"], heard)
        assert nobody_lives(reader)


def test_a_program_that_fails_leaves_no_children(tmp_path: Path) -> None:
    with fifo(tmp_path) as (path, reader):
        with pytest.raises(RewardError, match="ended with exit code 3"):
            scores(shell(f"exec 3>{path}; sleep 600 >&- 2>&- & exit 3"), "a")
        assert nobody_lives(reader)


def test_a_program_that_only_stops_reading_is_silent() -> None:
    with pytest.raises(RewardError, match=r"silent for 0.5 s after 0 of 20 scores"):
        scores(shell("exec sleep 600", silence_s=0.5), *["x" * 100_000] * 20)


@pytest.fixture
def ctrl_c() -> Generator[None]:
    """Ctrl-C is heard, also where these tests run in the background of a shell, which then ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_a_program_with_its_children(tmp_path: Path) -> None:
    with fifo(tmp_path) as (path, reader):
        with pytest.raises(KeyboardInterrupt):
            shell(f"exec 3>{path}; sleep 600 & echo 1; wait").score(
                [prompt("How?")] * 2, ["a", "b"], lambda _: os.kill(os.getpid(), signal.SIGINT)
            )
        assert nobody_lives(reader)


def test_a_child_that_stays_behind_is_not_waited_for(tmp_path: Path) -> None:
    """A judge that starts a server of its own may leave it running for the next call."""
    with fifo(tmp_path) as (path, _):
        assert scores(shell(f"exec 3<>{path}; (read end <&3; touch {tmp_path}/lived) & echo 1"), "a") == [1.0]
        path.write_text("end\n", "utf-8")
        wait_until((tmp_path / "lived").exists, 60)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("command:no-such-judge --fast", "the program 'no-such-judge' does not exist"),
        ("command:./judge.py", "the program './judge.py' does not exist"),
        ("command:'unfinished", "cannot be split into words: No closing quotation"),
        ("command:''", "the program '' does not exist"),
    ],
)
def test_what_cannot_be_started_is_refused_before_anything_is_scored(spec: str, message: str) -> None:
    with pytest.raises(RewardError, match=message):
        read_reward(spec)


def test_a_program_for_another_machine_is_told(tmp_path: Path) -> None:
    program = tmp_path / "judge"
    program.write_bytes(b"\x7fELF nothing that runs")
    program.chmod(0o755)
    with pytest.raises(RewardError, match="judge cannot be started: Exec format error"):
        scores(f"command:{program}", "a")
