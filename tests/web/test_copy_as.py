"""A request as code: run for real, each way asks the engine for the same as the page does."""

import json
import runpy
import shutil
import subprocess
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from panacea.engine.request import Request
from tests.api.fake_engine import FakeEngine
from tests.api.serving import NAME, serving
from tests.web.modules import CallModule, call_module

KEY = "a-key's-'own'-$HOME"

TEXTS = [
    "How do I sharpen a knife?",
    "",
    " ' '' \\' \"double\" \"\"\" ''' `back` ``` ",
    "one\ntwo\r\nthree\rfour\n    indented\n\n",
    "$(touch stolen) `touch stolen` ${HOME} $HOME !! ~ * ? [a] {a,b} ; & | > stolen < # %s %(x)s {x} {{}}",
    "\\ \\\\ \\n \\u0041 \\ud83d \\x41 \\N{BULLET} \\' \\\" \\",
    "naïve 北京 🔪👩‍👩‍👧 e\u0301 \u202eabc\u202c \ufeff \u00ad",
    "\u2028 line \u2029 paragraph \x85 next \x0b \x0c \x1c \x1e",
    "\x00 \x01 \x07 \x1b[31m \x7f",
    "EOF\n'\"; import os; os.system('touch stolen') #",
    "-d @/etc/passwd",
    "@stolen",
    "<script>alert(1)</script> &amp; %20",
    "\"), preference={'helpful': 1}) #",
    "None True False null true NaN",
]


def question(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


CONVERSATION = [
    {"role": "system", "content": "Be 'kind'.\n\"Always\"."},
    question("one\ntwo"),
    {"role": "assistant", "content": "$(three)\n\n```sh\necho 'four'\n```"},
    question("five 🔪"),
]
PREFERENCE = {"helpful": 0.7, "harmless": 0, "concise": 0.3}

REQUESTS: list[dict[str, Any]] = [
    *({"model": NAME, "messages": [question(text)], "preference": PREFERENCE} for text in TEXTS),
    {"model": NAME, "messages": CONVERSATION, "preference": {"helpful": 0.001, "harmless": 0.002, "concise": 0.997}},
    {"model": NAME, "messages": CONVERSATION[1:], "temperature": 0},
    {"model": NAME, "messages": CONVERSATION[:2], "temperature": 0.7, "top_p": 0.9, "max_tokens": 7, "seed": 0},
    {"model": f"{NAME}:base", "messages": [question("x")], "temperature": 1e-7, "top_p": 0.01, "max_tokens": 1},
    {"model": f"{NAME}:brief", "messages": [question("x")], "seed": 2**53 - 1, "max_tokens": 100},
]


@dataclass(frozen=True)
class Copying:
    """The page on a server that wants a key, and what arrives behind it."""

    url: str
    engine: FakeEngine
    modules: CallModule

    def arrived(self, send: Callable[[], object]) -> Request:
        """The one request that `send` makes, but for a seed that the server drew."""
        before = len(self.engine.submitted)
        send()
        (submitted,) = self.engine.submitted[before:]
        return submitted

    def by_the_page(self, request: dict[str, Any]) -> Request:
        stream = """async ({ Api }, [key, request]) => {
          for await (const _ of new Api(key).stream(request, new AbortController().signal));
        }"""
        return self.arrived(lambda: self.modules("api", stream, [KEY, request]))

    def code(self, function: str, request: dict[str, Any], *others: object) -> str:
        """What `copy_as.js` makes of it."""
        call = f"(module, given) => module.{function}(...given)"
        return str(self.modules("copy_as", call, [request, self.url, *others]))


@pytest.fixture(scope="module")
def copying(browser: Browser) -> Generator[Copying]:
    engine = FakeEngine(script=[5, 6, 7])

    async def make_engine() -> FakeEngine:
        return engine

    with serving(make_engine, api_keys=(KEY,)) as served:
        page = browser.new_page()
        page.goto(served.url)
        yield Copying(served.url, engine, partial(call_module, page))
        page.close()


@pytest.fixture(autouse=True)
def key_and_empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Generator[None]:
    """As the code's user has it; nothing but the program may be in the folder afterwards."""
    monkeypatch.setenv("PANACEA_API_KEY", KEY)
    monkeypatch.chdir(tmp_path)
    yield
    assert {path.name for path in tmp_path.iterdir()} <= {"program.py"}


def same(arrived: Request, expected: Request, request: dict[str, Any]) -> bool:
    """A request without a seed gets a new one each time."""
    if "seed" not in request:
        arrived = replace(arrived, params=replace(arrived.params, seed=expected.params.seed))
    return arrived == expected


@pytest.mark.slow
@pytest.mark.parametrize("request_", REQUESTS)
@pytest.mark.parametrize("function", ["asOpenAI", "asPanaceaClient"])
def test_python_code_asks_for_the_same_and_prints_the_answer(
    copying: Copying, capsys: pytest.CaptureFixture[str], function: str, request_: dict[str, Any]
) -> None:
    program = Path("program.py")
    program.write_text(copying.code(function, request_), "utf-8")
    arrived = copying.arrived(lambda: runpy.run_path(str(program)))
    assert same(arrived, copying.by_the_page(request_), request_)
    assert capsys.readouterr().out.strip()


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl: apt-get install curl")
@pytest.mark.parametrize("request_", REQUESTS)
def test_a_shell_asks_for_the_same_and_prints_the_answer(copying: Copying, request_: dict[str, Any]) -> None:
    command = copying.code("asCurl", request_, True)

    def run() -> None:
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True, timeout=30)
        answers.append(json.loads(done.stdout))

    answers: list[Any] = []
    arrived = copying.arrived(run)
    assert same(arrived, copying.by_the_page(request_), request_)
    assert answers[0]["choices"][0]["message"]["content"]


def test_the_key_itself_is_in_no_code(copying: Copying) -> None:
    request = REQUESTS[0]
    with_key, without = (copying.code("asCurl", request, needs_key) for needs_key in (True, False))
    assert '"Authorization: Bearer $PANACEA_API_KEY"' in with_key
    assert "PANACEA_API_KEY" not in without
    assert "PANACEA_API_KEY" in copying.code("asOpenAI", request)
    codes = [with_key, copying.code("asOpenAI", request), copying.code("asPanaceaClient", request)]
    assert not any("a-key" in code for code in codes)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl: apt-get install curl")
def test_the_servers_address_is_no_code_of_the_shells(copying: Copying) -> None:
    """A proxy may put the page under any path, and a path may have all of these."""
    server = f"{copying.url}/it's;mkdir$IFS'stolen'&$(mkdir$IFS'away')"
    command = copying.modules("copy_as", "(module, given) => module.asCurl(...given)", [REQUESTS[0], server, True])
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, timeout=30)
    assert "error" in json.loads(done.stdout)


def test_code_reads_as_if_someone_had_written_it(copying: Copying) -> None:
    request = {"model": NAME, "messages": [question("Why?")], "preference": {"helpful": 1}, "temperature": 0}
    assert copying.code("asPanaceaClient", request) == (
        "from panacea_client import Panacea\n"
        "\n"
        f'with Panacea("{copying.url}") as client:  # the key comes from PANACEA_API_KEY\n'
        "    answer = client.chat(\n"
        '        "Why?",\n'
        f'        model="{NAME}",\n'
        '        preference={"helpful": 1},\n'
        "        temperature=0,\n"
        "    )\n"
        "print(answer.text)"
    )
    assert copying.code("asOpenAI", request).splitlines()[5:] == [
        "answer = client.chat.completions.create(",
        f'    model="{NAME}",',
        "    messages=[",
        '        {"role": "user", "content": "Why?"},',
        "    ],",
        "    temperature=0,",
        '    extra_body={"preference": {"helpful": 1}},',
        ")",
        "print(answer.choices[0].message.content)",
    ]
