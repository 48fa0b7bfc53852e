"""What a server tells about itself: models, preferences, evaluation, health."""

import json
from typing import Any

import httpx2
import pytest

from panacea.api import create_app
from panacea.config import ServerConfig
from panacea.errors import CheckpointError
from panacea.preference import PreferenceSpace
from tests.api.chatting import CHAT, ask, body, error_of
from tests.api.fake_engine import FakeEngine
from tests.api.serving import NAME, SPACE, serving
from tests.api.text_workers import text_workers

POINT = {
    "preference": [1.0, 0.0],
    "rewards": [0.5, 0.2],
    "standard_errors": [0.1, 0.1],
    "mean_words": 20.5,
    "faithful": 0.99,
    "non_dominated": True,
}
SWEEP = {
    "temperature": 0.7,
    "samples_per_prompt": 4,
    "points": [POINT],
    "spearman": {"helpful": 0.93, "concise": 0.94},
    "spearman_intervals": {"helpful": [0.9, 0.95], "concise": [0.9, 0.96]},
    "hypervolume": 1.25,
    "hypervolume_interval": [1.2, 1.3],
    "inner_product": 0.5,
    "inner_product_interval": [0.4, 0.6],
    "sparsity": 0.01,
    "sparsity_interval": [0.0, 0.02],
    "spacing": 0.02,
    "spacing_interval": [0.01, 0.03],
    "non_dominated": 1,
    "distinct": 1,
    "distinct_vertices_share": 0.8,
    "note": "more keys are welcome",
}
EVALUATION: dict[str, Any] = {
    "format_version": 1,
    "model": "demo",
    "created": "2026-11-20",
    "dimensions": ["helpful", "concise"],
    "reference_point": [0, -1],
    "prompts": 30,
    "sweeps": [SWEEP],
}


async def make_engine() -> FakeEngine:
    return FakeEngine()


def app_with(evaluation: bytes | None) -> None:
    create_app(ServerConfig(NAME), FakeEngine(), text_workers(), SPACE, evaluation)


def test_models_are_the_name_its_base_and_the_presets(client: httpx2.Client) -> None:
    listed = client.get("/v1/models").json()
    assert listed["object"] == "list"
    preferences = {model["id"]: model["preference"] for model in listed["data"]}
    assert preferences == {
        NAME: {"helpful": 0.4, "harmless": 0.3, "concise": 0.3},
        f"{NAME}:base": None,
        f"{NAME}:brief": {"helpful": 0, "harmless": 0, "concise": 1},
        f"{NAME}:thorough": {"helpful": 0.75, "harmless": 0.25, "concise": 0},
    }
    for model in listed["data"]:
        assert model["object"] == "model"
        assert client.get(f"/v1/models/{model['id']}").json() == model


@pytest.mark.parametrize("model", ["nobody", f"{NAME}:", f"{NAME}:nobody", "a/b", "%00", "\u00e9", "x" * 10_000])
def test_other_models_are_404(client: httpx2.Client, model: str) -> None:
    response = client.get(f"/v1/models/{model}")
    error = error_of(response)
    assert (response.status_code, error["param"], error["code"]) == (404, "model", "model_not_found")


def test_preferences_are_the_spaces(client: httpx2.Client) -> None:
    assert client.get("/v1/preferences").json() == {
        "dimensions": [{"name": each.name, "description": each.description} for each in SPACE.dimensions],
        "default": {"helpful": 0.4, "harmless": 0.3, "concise": 0.3},
        "presets": {
            "brief": {"helpful": 0, "harmless": 0, "concise": 1},
            "thorough": {"helpful": 0.75, "harmless": 0.25, "concise": 0},
        },
        "example_prompts": list(SPACE.example_prompts),
    }


def test_a_bare_base_model_serves_without_preferences() -> None:
    with serving(make_engine, space=None) as served, httpx2.Client(base_url=served.url) as client:
        assert [model["id"] for model in client.get("/v1/models").json()["data"]] == [NAME, f"{NAME}:base"]
        empty: dict[str, Any] = {"dimensions": [], "default": {}, "presets": {}, "example_prompts": []}
        assert client.get("/v1/preferences").json() == empty
        assert ask(client)["preference"] is None
        assert ask(client, preference=None, model=f"{NAME}:base")["preference"] is None
        for weights in ('{"helpful": 1}', "[]", "{}", '"x"'):
            error = error_of(client.post(CHAT, json=body(preference=json.loads(weights))))
            assert error["param"] == "preference"
            assert "without adapter" in error["message"]
        repeated = json.dumps(body()).replace("{", '{"preference": {"a": 1, "a": 2}, ', 1)
        headers = {"content-type": "application/json"}
        assert error_of(client.post(CHAT, content=repeated, headers=headers))["param"] == "preference.a"


def test_an_adapter_without_dimensions_has_one_preference() -> None:
    with serving(make_engine, space=PreferenceSpace((), ())) as served, httpx2.Client(base_url=served.url) as client:
        assert ask(client)["preference"] == {}
        assert ask(client, preference={})["preference"] == {}
        assert ask(client, model=f"{NAME}:base")["preference"] is None
        error = error_of(client.post(CHAT, json=body(preference={"helpful": 1})))
        assert "no dimensions" in error["message"]


def test_an_evaluation_is_served_as_it_was_written() -> None:
    content = json.dumps(EVALUATION, indent=3).encode()
    with serving(make_engine, evaluation=content) as served:
        response = httpx2.get(f"{served.url}/v1/evaluation")
    assert (response.content, response.headers["content-type"]) == (content, "application/json")


def test_without_one_there_is_none(client: httpx2.Client) -> None:
    response = client.get("/v1/evaluation")
    assert (response.status_code, error_of(response)["code"]) == (404, "no_evaluation")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        json.dumps(EVALUATION | {"format_version": 2}).encode(),
        json.dumps(EVALUATION | {"sweeps": [SWEEP | {"points": [{}]}]}).encode(),
        json.dumps(EVALUATION | {"sweeps": [SWEEP | {"hypervolume": float("nan")}]}).encode(),
    ],
)
def test_a_damaged_evaluation_is_refused_at_the_start(content: bytes) -> None:
    with pytest.raises(CheckpointError, match="evaluation"):
        app_with(content)


def test_a_good_or_absent_evaluation_is_not() -> None:
    app_with(json.dumps(EVALUATION).encode())
    app_with(None)


def test_health_asks_only_the_process(own_client: httpx2.Client, engine: FakeEngine) -> None:
    engine.alive = False
    assert own_client.get("/health").json() == {"status": "ok"}


def test_ready_asks_the_engine(own_client: httpx2.Client, engine: FakeEngine) -> None:
    assert own_client.get("/ready").json() == {"status": "ready"}
    engine.heartbeat_age_s = 11
    silent = own_client.get("/ready")
    assert (silent.status_code, error_of(silent)["code"]) == (503, "engine_silent")
    engine.heartbeat_age_s, engine.alive = 0, False
    dead = own_client.get("/ready")
    assert (dead.status_code, error_of(dead)["code"]) == (503, "engine_unavailable")
