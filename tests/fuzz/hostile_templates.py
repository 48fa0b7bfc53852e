"""Chat templates that mean harm: each is served, asked, and the server told to end.

A template is a program of the model. The server may refuse it in one line, or each of its conversations. It must answer
`/health` meanwhile, and end when it is told to.
"""

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from panacea.demo_model import DEMO_BASE
from panacea_lab.bench.measurement import BenchError
from panacea_lab.bench.soak.http_caller import Address, Caller, CallError
from panacea_lab.bench.soak.soaked_server import started
from tests.fuzz.health_watch import watched
from tests.fuzz.values import CHAT

END_LIMIT_S = 10.0
"""From SIGTERM to the end, with a conversation in the template."""

TEMPLATES: Mapping[str, str] = {
    "a loop without output": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "a loop with output": "{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}{% endfor %}{% endfor %}",
    "a constant of 2 GB": "{{ 'a'|center(2000000000) }}",
    "a string of 2 GB": "{{ 'a' * (2000000000 + messages|length) }}",
    "a power": "{{ 9 ** 9 ** 9 ** messages|length }}",
    "5,000 parentheses": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "5,000 blocks": "{% if true %}" * 5000 + "{% endif %}" * 5000,
    "a macro that calls itself": "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
    "a list that grows": "{% set a = namespace(b=[1]) %}{% for c in range(99) %}{% set a.b = a.b + a.b %}{% endfor %}",
    "a format": "{{ '%1000000000d' % messages|length }}",
    "a way out of the sandbox": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "not a template": "{% if %}",
}

_BODY = b'{"messages": [{"role": "user", "content": "How do I unblock a sink?"}], "max_tokens": 4}'


def try_template(name: str) -> list[str]:
    """What must not be, with this template."""
    with tempfile.TemporaryDirectory(prefix="panacea-template-") as folder:
        base = Path(folder) / "base"
        shutil.copytree(DEMO_BASE, base)
        (base / "chat_template.jinja").write_text(TEMPLATES[name], "utf-8")
        command = (sys.executable, "-m", "panacea_commands", "serve", "--port", "0", "--model", str(base))
        begin = time.monotonic()
        try:
            with started(command) as server:
                problems = _ask(server.url)
                problems += _end(server.pid)
        except BenchError as error:  # it refused to start, which it may
            said = str(error)
            problems = [] if "template" in said else [f"the server did not start: {said}"]
            if time.monotonic() - begin > 60:
                problems.append(f"the server took {time.monotonic() - begin:.0f} s to refuse the template")
    return [f"{name}: {problem}" for problem in problems]


def _ask(url: str) -> list[str]:
    with watched(url) as watch, closing(Caller(Address.of(url))) as caller:
        time.sleep(0.6)  # so that the watch has enough answers
        try:
            status = caller.ask("POST", CHAT, _BODY).status
        except CallError as error:
            return [str(error)]
    return watch.problems() + ([] if status in (200, 400, 503) else [f"a chat got {status}"])


def _end(pid: int) -> list[str]:
    subprocess.run(["kill", f"-{signal.SIGTERM.value}", str(pid)], check=False)
    end = time.monotonic() + END_LIMIT_S
    while time.monotonic() < end:
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return []
        time.sleep(0.1)
    return [f"the server did not end within {END_LIMIT_S:g} s after SIGTERM"]
