"""`panacea-chat` as a person and as a pipe use it."""

import json
import os
import re
import signal
import subprocess
import sys
from typing import Any

import pytest

from panacea.engine.request import Request
from panacea.errors import EngineError
from panacea_client import Preferences
from panacea_client.terminal.screen import printable
from panacea_client.terminal.session import InputError, Session
from tests.api.fake_engine import EOS, FakeEngine
from tests.api.serving import SPACE, TEXT, Served, wait_until
from tests.client.hostile import STREAM_HEAD, answer, hostile
from tests.client.test_streams import DONE, chunk
from tests.client.typing_person import CHAT, typing_person

QUESTION = "How do I sharpen a knife?"
WORDS = [*range(60, 90), EOS]


def pipe(url: str, text: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """What a pipe gets that writes `text`."""
    return subprocess.run(
        [*CHAT, *arguments],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        env={**os.environ, "PANACEA_BASE_URL": url, "PYTHONWARNINGS": "error", "PYTHONDEVMODE": "1"},
    )


def prompt(submitted: Request) -> str:
    """What the engine got, as text."""
    return TEXT.tokenizer.decode(list(submitted.prompt_ids))


def session(**fields: Any) -> Session:
    space = Preferences.model_validate(
        {
            "dimensions": [{"name": each.name, "description": each.description} for each in SPACE.dimensions],
            "default": SPACE.as_dict(SPACE.default),
            "presets": {name: SPACE.as_dict(weights) for name, weights in SPACE.presets.items()},
            "example_prompts": [],
        }
    )
    return Session(space, **fields)


@pytest.mark.parametrize(
    ("words", "weights"),
    [
        ("concise 0.8", (0.2 * 4 / 7, 0.2 * 3 / 7, 0.8)),
        ("concise 1", (0, 0, 1)),
        ("concise 0", (4 / 7, 3 / 7, 0)),
        ("helpful 2 concise 1", (2 / 3, 0, 1 / 3)),
        ("helpful 0.5 harmless 0.25 concise 0.25", (0.5, 0.25, 0.25)),
        ("brief", (0, 0, 1)),
        ("thorough", (0.75, 0.25, 0)),
    ],
)
def test_set_gives_one_dimension_its_share_or_all_their_weights(words: str, weights: tuple[float, ...]) -> None:
    chat = session()
    chat.set_preference(words.split())
    assert chat.weights == pytest.approx(SPACE.as_dict(weights))
    assert list(chat.weights or ()) == list(SPACE.names)


def test_shares_come_back_from_a_corner_and_to_the_default() -> None:
    chat = session()
    chat.set_preference(["concise", "1"])
    chat.set_preference(["concise", "0.5"])
    assert chat.weights == {"helpful": 0.25, "harmless": 0.25, "concise": 0.5}
    chat.set_preference(["default"])
    assert chat.weights is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "type /set concise 0.8"),
        ("nothing", "thorough"),
        ("kind 0.5", "helpful, harmless, concise"),
        ("concise much", "'much' is not a number"),
        ("concise nan", "between 0 and 1e6"),
        ("concise -1", "between 0 and 1e6"),
        ("concise 2", "share of one dimension must be between 0 and 1"),
        ("concise 0 helpful 0", "above 0"),
        ("concise 1 helpful", "type /set"),
    ],
)
def test_what_set_cannot_follow_says_what_it_could(words: str, said: str) -> None:
    chat = session()
    with pytest.raises(InputError, match=said):
        chat.set_preference(words.split())
    assert chat.weights is None


def test_a_servers_text_cannot_drive_the_terminal() -> None:
    assert printable("a\x1b[2Jb\rc\x07\x9bd\n\te 🏳️‍🌈") == "a[2Jbcd\n\te 🏳️‍🌈"


def test_a_pipe_gets_answers_and_nothing_else(server: Served, engine: FakeEngine) -> None:
    engine.script = WORDS
    done = pipe(server.url, f"{QUESTION}\n\n{QUESTION}\n", "--set", "concise=1")
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    assert first == second
    assert len(first) > 20
    assert "\x1b" not in done.stdout
    assert {submitted.preference for submitted in engine.submitted} == {(0.0, 0.0, 1.0)}
    assert len(engine.submitted[1].prompt_ids) > len(engine.submitted[0].prompt_ids), "the first turn is forgotten"


def test_an_empty_answer_is_an_empty_line(server: Served, engine: FakeEngine) -> None:
    engine.script = [EOS]
    assert pipe(server.url, f"{QUESTION}\n{QUESTION}\n").stdout == "\n\n"
    prompts = {tuple(submitted.prompt_ids) for submitted in engine.submitted}
    assert len(prompts) == 1, "an answer that was none is no part of the conversation"


def test_commands_of_a_pipe(server: Served, engine: FakeEngine) -> None:
    engine.script = WORDS
    lines = f"""{QUESTION}
/set concise 0.8
/preference
/presets
/compare
/new
/system Be kind.
{QUESTION}
/quit
{QUESTION}"""
    done = pipe(server.url, lines, "--system", "Be brief.")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"concise +━+ +0\.80 +says it in few words", done.stdout)
    assert re.search(r"brief +concise 1", done.stdout)
    assert re.search(r"default +helpful 0\.40, harmless 0\.30, concise 0\.30", done.stdout)
    assert done.stdout.count("# ") == 4
    assert "# helpful 1\n" in done.stdout
    preferences = [submitted.preference for submitted in engine.submitted]
    shares = pytest.approx((0.2 * 4 / 7, 0.2 * 3 / 7, 0.8))
    assert preferences[0] == SPACE.default
    assert {(1, 0, 0), (0, 1, 0), (0, 0, 1)} < {*preferences[1:5]}
    assert preferences[5] == shares
    assert len(preferences) == 6
    prompts = [prompt(submitted) for submitted in engine.submitted]
    assert prompts[:5] == [prompts[0]] * 5, "the comparison saw the answer that it is to replace"
    assert "Be brief." in prompts[0]
    assert prompts[5] == prompts[0].replace("Be brief.", "Be kind.")


def test_a_comparison_of_another_question_is_not_part_of_the_conversation(server: Served, engine: FakeEngine) -> None:
    done = pipe(server.url, "/compare And now?\n/compare\n")
    assert "no question yet" in done.stderr
    assert done.returncode == 1
    assert len(engine.submitted) == 4


def test_help_lists_every_command(server: Served, engine: FakeEngine) -> None:
    done = pipe(server.url, "/help\n/nonsense\n")
    for name in (
        "/help",
        "/set",
        "/preference",
        "/presets",
        "/compare",
        "/new",
        "/system",
        "/quit",
        "Ctrl-C",
        "Ctrl-D",
    ):
        assert name in done.stdout
    assert done.stderr.startswith("unknown command /nonsense; the commands are /help, /set")
    assert done.returncode == 1
    assert engine.submitted == []


def test_a_failure_in_a_pipe_shows_in_the_exit_code_and_the_next_line_is_answered(
    server: Served, engine: FakeEngine
) -> None:
    done = pipe(server.url, f"{'long ' * 600}\n{QUESTION}\n")
    assert done.returncode == 1
    assert "400: the prompt has" in done.stderr
    assert len(engine.submitted) == 1
    assert done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--base-url", "localhost:1"), 1, "http://"),
        (("--base-url", "http://localhost:1"), 1, "no server answers at http://localhost:1"),
        (("--set", "kind=1"), 1, "helpful, harmless, concise"),
        (("--no-such-option",), 2, "usage: panacea-chat"),
    ],
)
def test_a_start_that_fails_is_one_line_that_says_why(
    server: Served, arguments: tuple[str, ...], code: int, words: str
) -> None:
    done = pipe(server.url, QUESTION, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_bytes_that_are_no_text_and_a_reader_that_leaves(server: Served, engine: FakeEngine) -> None:
    environment = {**os.environ, "PANACEA_BASE_URL": server.url}
    done = subprocess.run(CHAT, input=b"\xff\xfe?\n", capture_output=True, check=True, timeout=30, env=environment)
    assert done.stdout
    engine.script = [*range(60, 300), EOS]
    shell = f"yes '{QUESTION}' | head -30 | {CHAT[0]} -c '{CHAT[2]}' | head -c 5"
    left = subprocess.run(["bash", "-c", shell], capture_output=True, check=True, timeout=30, env=environment)
    assert (len(left.stdout), left.stderr) == (5, b"")


def test_what_a_hostile_server_says_does_not_reach_the_terminal_raw() -> None:
    space = {"dimensions": [], "default": {"a": 1.0}, "presets": {"x\x1b[2J": {"a": 1.0}}, "example_prompts": []}
    stream = [STREAM_HEAD, chunk("a\x1b[2J\x1b]0;owned\x07b"), chunk(None, "stop"), DONE]
    with hostile([answer(json.dumps(space).encode())], stream) as server:
        done = pipe(server.url, f"/presets\n{QUESTION}\n")
    assert "\x1b" not in done.stdout
    assert "a[2J]0;ownedb" in done.stdout


def test_without_rich_it_says_what_to_install() -> None:
    program = "import sys; sys.modules['rich'] = None; from panacea_client.cli import main; sys.argv[1:] = []; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "panacea-chat needs rich: pip install 'panacea-client[cli]'\n"


def test_a_person_talks_stops_an_answer_and_leaves(server: Served, engine: FakeEngine) -> None:
    engine.script = [*range(60, 300), EOS]
    with typing_person(server.url) as person:
        assert "helpful, harmless, concise. /help lists" in person.sees("> ")
        engine.step_s = 0.05
        person.type(f"{QUESTION}\n")
        person.sees(TEXT.tokenizer.decode([60, 61, 62]))
        person.type("\x03")
        person.sees("stopped")
        wait_until(lambda: engine.live == 0)
        assert engine.aborted == 1
        person.sees("> ")
        engine.step_s, engine.script = 0.0, WORDS
        person.type("/set concise 0.8\n")
        person.sees("0.80")
        person.sees("> ")
        person.type("And then?\n")
        assert "concise 0.80 · 31 tokens" in person.sees("> ")
        before, after = prompt(engine.submitted[0]), prompt(engine.submitted[1])
        assert after.startswith(before)
        assert len(after) > len(before) + len("And then?"), "what came of the stopped answer is forgotten"
        person.interrupts("Ctrl-D to end the session")
        person.sees("> ")
        person.type("/foo\n")
        person.sees("unknown command /foo")
        person.sees("> ")
        person.type("\x04")
        assert person.leaves() == 0
        assert "Traceback" not in person.screen


def test_a_person_compares_side_by_side_and_may_stop_that_too(server: Served, engine: FakeEngine) -> None:
    engine.script = WORDS
    with typing_person(server.url, "--set", "brief") as person:
        person.sees("> ")
        person.type(f"/compare {QUESTION}\n")
        table = person.sees("> ")
        titles = next(line for line in table.splitlines() if "helpful 1" in line)
        assert re.search(r"concise 1 +helpful 1 +harmless 1 +concise 1", titles)
        assert "words" in table
        engine.prefill_s = 60
        person.type(f"{QUESTION}\n")
        wait_until(lambda: engine.live == 1)
        person.type("\x03")
        assert "base" not in person.sees("stopped"), "nothing is known of an answer before its first piece"
        person.sees("> ")
        person.type(f"/compare {QUESTION}\n")
        wait_until(lambda: engine.live == 4)
        person.type("\x03")
        person.sees("(stopped)")
        wait_until(lambda: engine.live == 0)
        person.sees("> ")
        person.type("/quit\n")
        assert person.leaves() == 0


def test_an_answer_that_breaks_off_keeps_its_line_to_itself(server: Served, engine: FakeEngine) -> None:
    engine.script, engine.failure, engine.failure_at = WORDS, EngineError("made up"), 9
    with typing_person(server.url) as person:
        person.sees("> ")
        person.type(f"{QUESTION}\n")
        lines = person.sees("> ").splitlines()
        assert lines[-1].startswith("the engine failed: made up (request ")
        assert lines[-2].strip()
        assert "Traceback" not in person.screen


def test_ctrl_c_ends_a_pipe(server: Served, engine: FakeEngine) -> None:
    engine.prefill_s = 60
    process = subprocess.Popen(
        CHAT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PANACEA_BASE_URL": server.url},
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(f"{QUESTION}\n{QUESTION}\n")
    process.stdin.flush()
    wait_until(lambda: engine.live == 1, 20)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=10)
    assert (process.returncode, output, errors) == (130, "", "")
    wait_until(lambda: engine.live == 0)
