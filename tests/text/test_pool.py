"""The text workers: real processes, which jobs and templates may hang, blow up or kill."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from array import array
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from panacea.errors import CheckpointError, PromptTooLongError, RequestError, RequestFailedError, TextWorkerError
from panacea.text import ChatMessage, PromptTokens
from panacea.text.jobs import (
    Detokenize,
    EchoedPrompt,
    EchoPrompts,
    EncodeConversation,
    EncodeTexts,
    TextJob,
    Tokenize,
    packed,
    template_json,
)
from panacea.text.pool import WORKERS, TextPool
from tests.golden_files import BASE
from tests.text.tiny import TEXT

Result = TypeVar("Result")
HELLO = [ChatMessage("user", "hello")]
MEMORY = (
    "{% set text = namespace(it='aaaaaaaa') %}{% for _ in range(40) %}{% set text.it = text.it ~ text.it %}{% endfor %}"
)
LOOP = "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}"
ON_LOOP = f"{{% if messages[0].content == 'loop' %}}{LOOP}{{% endif %}}{{{{ messages[0].content }}}}"


def folder_with(template: str, path: Path) -> Path:
    """A model folder with the golden tokenizer and this template."""
    shutil.copy(BASE / "tokenizer.json", path)
    (path / "chat_template.jinja").write_text(template)
    return path


def with_pool(test: Callable[[TextPool], Awaitable[Result]], folder: Path = BASE) -> Result:
    async def whole() -> Result:
        pool = await TextPool.start(folder, several_tenants=lambda: False)
        try:
            return await test(pool)
        finally:
            await pool.close()

    return asyncio.run(whole())


def conversation(
    messages: list[ChatMessage], variables: dict[str, object] | None = None, max_chars: int = 10_000
) -> EncodeConversation:
    return EncodeConversation(messages, template_json(variables), max_chars)


def workers_of(pool: TextPool) -> set[int]:
    """The process ids of all workers."""
    source = vars(pool)["_source"].pid
    return set(map(int, Path(f"/proc/{source}/task/{source}/children").read_text("ascii").split()))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_results_are_those_of_the_model_text() -> None:
    texts = ["a knife", "", "caf\u00e9 \U0001f600"]
    ids = TEXT.encode(texts)

    async def test(pool: TextPool) -> None:
        assert pool.template_variables == TEXT.template_variables
        assert await pool.run(conversation(HELLO), "") == TEXT.prompt_ids(HELLO)
        assert await pool.run(EncodeTexts(texts), "") == ids
        asked = EchoPrompts([(texts[0], packed(ids[0])), (None, packed(ids[2]))], scored=True)
        assert await pool.run(asked, "") == [
            EchoedPrompt(text, PromptTokens.of(TEXT, each, text))
            for text, each in ((texts[0], ids[0]), (texts[2], ids[2]))
        ]
        assert await pool.run(Detokenize(packed(ids[0])), "") == b'{"prompt":"a knife"}'

    with_pool(test)


def test_a_text_too_long_for_the_context_is_not_tokenized() -> None:
    async def test(pool: TextPool) -> None:
        with pytest.raises(PromptTooLongError, match="at most 100") as raised:
            await pool.run(conversation([ChatMessage("user", "x" * 101)], max_chars=100), "")
        assert raised.value.param == "messages"

    with_pool(test)


def test_variables_may_have_any_number_and_any_text(tmp_path: Path) -> None:
    async def test(pool: TextPool) -> None:
        (ids,) = await pool.run(EncodeTexts(["36893488147419103232 \u00e9"]), "")
        assert await pool.run(conversation(HELLO, {"n": 2**65, "t": "\u00e9"}), "") == ids

    with_pool(test, folder_with("{{ n }} {{ t }}", tmp_path))


@pytest.mark.slow
def test_a_template_that_never_ends_is_killed_and_others_are_served(tmp_path: Path) -> None:
    async def test(pool: TextPool) -> None:
        loop = asyncio.create_task(pool.run(conversation([ChatMessage("user", "loop")]), ""))
        await until(lambda: pool.stats.jobs == 1)
        assert await pool.run(conversation(HELLO), "") == TEXT.encode(["hello"])[0]
        with pytest.raises(RequestError, match="exceeds its limits") as raised:
            await loop
        assert (raised.value.param, pool.stats.killed) == ("messages", 1)

    with_pool(test, folder_with(ON_LOOP, tmp_path))


def test_a_template_that_takes_all_memory_is_refused(tmp_path: Path) -> None:
    async def test(pool: TextPool) -> None:
        with pytest.raises(RequestError) as raised:
            await pool.run(conversation([ChatMessage("user", "loop")]), "")
        assert raised.value.param == "messages"
        assert await pool.run(conversation(HELLO), "") == TEXT.encode(["hello"])[0]

    with_pool(test, folder_with(ON_LOOP.replace(LOOP, MEMORY), tmp_path))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% if %}", "does not compile: "),
        ("(" * 5_000, None),
        ("{{ " + "(" * 5_000 + "1" + ")" * 5_000 + " }}", "does not compile: "),
        ("{{ 'a' | center(2000000000) }}", "too much memory"),
        (MEMORY, "too much memory"),
    ],
)
def test_a_template_that_cannot_be_used_is_one_line_at_the_start(
    template: str, message: str | None, tmp_path: Path
) -> None:
    async def test(pool: TextPool) -> None:
        assert message is None
        assert await pool.run(conversation(HELLO, max_chars=10_000), "")

    if message is None:
        with_pool(test, folder_with(template, tmp_path))
        return
    with pytest.raises(CheckpointError, match=message) as raised:
        with_pool(test, folder_with(template, tmp_path))
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.slow
def test_a_template_that_always_loops_is_one_line_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match="takes more than 3 seconds"):
        with_pool(lambda pool: pool.run(conversation(HELLO), ""), folder_with(LOOP, tmp_path))


def test_a_killed_worker_is_replaced() -> None:
    async def test(pool: TextPool) -> None:
        for _ in range(3):
            for pid in workers_of(pool):
                os.kill(pid, signal.SIGKILL)
            errors = await asyncio.gather(
                *(pool.run(conversation(HELLO), "") for _ in range(WORKERS)), return_exceptions=True
            )
            assert isinstance(errors[0], TextWorkerError)
            assert await pool.run(conversation(HELLO), "") == TEXT.prompt_ids(HELLO)

    with_pool(test)


def test_workers_start_again_if_all_their_processes_die() -> None:
    async def test(pool: TextPool) -> None:
        workers = workers_of(pool)
        os.kill(vars(pool)["_source"].pid, signal.SIGKILL)
        await until(lambda: not any(is_running(pid) for pid in workers))
        await asyncio.gather(*(pool.run(conversation(HELLO), "") for _ in range(WORKERS)), return_exceptions=True)
        assert await pool.run(conversation(HELLO), "") == TEXT.prompt_ids(HELLO)

    with_pool(test)


class Panics(TextJob[None], frozen=True, tag="Detokenize"):
    """A job that the worker reads as a detokenization of token ids that it cannot convert."""

    ids: bytes

    @property
    def chars(self) -> int:
        return len(self.ids)

    def perform(self, text: object) -> bytes:
        raise NotImplementedError

    def read(self, result: bytes) -> None:
        raise NotImplementedError


def test_an_unexpected_error_in_a_job_is_told_without_its_text() -> None:
    async def test(pool: TextPool) -> None:
        with pytest.raises(RequestFailedError, match="ValueError") as raised:
            await pool.run(Panics(b"secret"), "")
        assert "secret" not in str(raised.value)
        assert await pool.run(conversation(HELLO), "") == TEXT.prompt_ids(HELLO)

    with_pool(test)


def test_a_caller_that_goes_away_leaves_nothing_behind() -> None:
    async def test(pool: TextPool) -> None:
        for delay_s in (0, 0.0001, 0.0005, 0.001, 0.01):
            tasks = [asyncio.create_task(pool.run(EncodeTexts(["x" * 100_000]), "")) for _ in range(5)]
            await asyncio.sleep(delay_s)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert await pool.run(conversation(HELLO), "") == TEXT.prompt_ids(HELLO)
        await until(lambda: len(workers_of(pool)) <= WORKERS)
        assert (pool.stats.waiting, pool.stats.killed) == (0, 0)

    with_pool(test)


def test_a_large_job_leaves_no_memory_in_its_worker() -> None:
    async def test(pool: TextPool) -> None:
        before = workers_of(pool)
        text = "\u00e9" * (1 << 20)
        ids = array("I", (await pool.run(EncodeTexts([text]), ""))[0])
        assert len(ids) == 2 << 20
        await until(lambda: len(workers_of(pool) & before) == WORKERS - 1)

    with_pool(test)


def test_a_worker_is_replaced_after_many_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("panacea.text.pool._MOST_JOBS", 3)

    async def test(pool: TextPool) -> None:
        before = workers_of(pool)
        for _ in range(3 * WORKERS):
            await pool.run(conversation(HELLO), "")
        await until(lambda: not workers_of(pool) & before)

    with_pool(test)


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_workers_die_with_the_server(how: str, tmp_path: Path) -> None:
    """Also workers that are inside an endless job, or stopped."""
    folder_with(ON_LOOP, tmp_path)
    program = (
        "import asyncio, sys; from pathlib import Path; from tests.text.test_pool import *\n"
        "async def main():\n"
        "    pool = await TextPool.start(Path(sys.argv[1]), several_tenants=lambda: False)\n"
        "    job = asyncio.create_task(pool.run(conversation([ChatMessage('user', 'loop')]), ''))\n"
        "    await until(lambda: pool.stats.jobs == 1)\n"
        "    print(vars(pool)['_source'].pid, *workers_of(pool), flush=True)\n"
        "    await job\n"
        "asyncio.run(main())"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        pids = [int(pid) for pid in server.stdout.readline().split()]
        assert len(pids) == WORKERS + 1
        if how == "stopped":
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
        server.kill()
    deadline = time.monotonic() + 30
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_tokenization_is_vllms_answer() -> None:
    async def test(pool: TextPool) -> None:
        job = Tokenize("hi", [], None, False, True, True, 100, 512)
        expected = b'{"count":2,"max_model_len":512,"tokens":[%d,%d],"token_strs":["h","i"]}'
        (ids,) = TEXT.encode(["hi"])
        assert await pool.run(job, "") == expected % tuple(ids)

    with_pool(test)
