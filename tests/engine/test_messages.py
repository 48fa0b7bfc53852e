"""The one message that a request is, on its way from the route to the engine."""

from dataclasses import fields
from pathlib import Path

import msgspec
import pytest

import panacea.api
import panacea.engine
from panacea.engine.messages import Open, ToEngine
from panacea.engine.request import Request
from panacea.engine.sampling_params import SamplingParams

ENGINE, API = (Path(str(package.__file__)).parent for package in (panacea.engine, panacea.api))


@pytest.mark.parametrize("preference", [None, (0.25, 0.75)])
def test_a_request_reaches_the_engines_process_whole(preference: tuple[float, ...] | None) -> None:
    params = SamplingParams(
        max_tokens=7,
        temperature=0.5,
        top_k=3,
        logit_bias=((5, -1.5),),
        seed=2**63,
        choice=2,
        stop_token_ids=(9,),
        logprobs=2,
        json_schema='{"type": "object"}',
    )
    request = Request([1, 2, 3], preference, params, cache_salt="salt", tenant="tenant")
    decoded = msgspec.msgpack.decode(msgspec.msgpack.encode(Open("7", request)), type=ToEngine)
    assert decoded == Open("7", request)


@pytest.mark.parametrize(
    "file",
    [
        ENGINE / "client.py",
        ENGINE / "messages.py",
        ENGINE / "process.py",
        ENGINE / "supervisor.py",
        API / "engine_interface.py",
        API / "generation" / "pieces.py",
    ],
    ids=lambda file: file.name,
)
def test_who_passes_a_request_on_names_none_of_its_fields(file: Path) -> None:
    """So a field that only the engine reads is declared in `Request`, and read in the engine."""
    source = file.read_text("utf-8")
    assert [field.name for field in fields(Request) if field.name in source] == []
