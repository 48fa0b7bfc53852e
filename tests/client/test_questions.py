"""Asking a real server, blocking and asynchronously."""

import json
import threading
from typing import Any

import pytest

from panacea.demo_model import DEMO_ADAPTER
from panacea_client import BadRequestError, NotFoundError, Panacea, preference_grid
from tests.api.fake_engine import FakeEngine
from tests.api.serving import NAME, SPACE, Served, serving, wait_until
from tests.client.either import Either, MakeClient
from tests.client.hostile import answer, hostile

QUESTION = "How do I sharpen a knife?"


def test_an_answer_has_its_text_its_usage_and_the_preference_that_was_used(client: Either, engine: FakeEngine) -> None:
    given = client.chat(QUESTION, preference={"helpful": 3, "concise": 1}, seed=1, max_tokens=20)
    assert given.text
    assert given.preference == {"helpful": 0.75, "harmless": 0.0, "concise": 0.25}
    assert engine.submitted[0].preference == (0.75, 0.0, 0.25)
    assert given.model == NAME
    assert given.usage.completion_tokens == 20
    assert given.finish_reason == "length"
    assert given.texts == [given.text]
    assert given.request_id
    assert given.created > 1_700_000_000


def test_a_preference_is_written_in_many_ways(client: Either) -> None:
    for preference in ([3, 0, 1], (0.75, 0.0, 0.25), iter([3, 0, 1]), {"concise": 1, "helpful": 3}):
        given = client.chat(QUESTION, preference=preference, max_tokens=1)
        assert given.preference == {"helpful": 0.75, "harmless": 0.0, "concise": 0.25}


def test_numpys_numbers_are_numbers(client: Either) -> None:
    np = pytest.importorskip("numpy")
    for preference in (np.array([1, 0, 1], "float32"), {"helpful": np.float32(2), "concise": np.int64(2)}):
        given = client.chat(QUESTION, preference=preference, max_tokens=1)
        assert given.preference == {"helpful": 0.5, "harmless": 0.0, "concise": 0.5}


def test_without_a_preference_the_model_id_decides(client: Either) -> None:
    assert client.chat(QUESTION, max_tokens=1).preference == SPACE.as_dict(SPACE.default)
    assert client.chat(QUESTION, model=f"{NAME}:brief", max_tokens=1).preference == SPACE.as_dict((0, 0, 1))
    assert client.chat(QUESTION, model=f"{NAME}:base", max_tokens=1).preference is None


def test_every_option_reaches_the_engine(client: Either, engine: FakeEngine) -> None:
    given = client.chat(
        QUESTION, n=2, max_tokens=7, temperature=0.5, top_p=0.25, top_k=9, seed=3, extra={"min_tokens": 2}, timeout=30
    )
    assert len(given.texts) == len({*given.texts}) == 2
    params = [submitted.params for submitted in engine.submitted]
    assert [each.choice for each in params] == [0, 1]
    for each in params:
        assert (each.max_tokens, each.temperature, each.top_p, each.top_k) == (7, 0.5, 0.25, 9)
        assert (each.seed, each.min_tokens) == (3, 2)


def test_options_that_are_none_are_the_servers_to_choose(client: Either, engine: FakeEngine) -> None:
    client.chat(QUESTION, seed=1)
    client.chat(
        QUESTION, seed=1, model=None, system=None, stop=None, n=None, temperature=None, extra=None, timeout=None
    )
    assert engine.submitted[0] == engine.submitted[1]


def test_an_answer_stops_at_a_text(client: Either) -> None:
    whole = client.chat(QUESTION, seed=1, max_tokens=30).text
    for stop in (whole[6:9], [whole[6:9]], ("not in there", whole[6:9])):
        cut = client.chat(QUESTION, seed=1, max_tokens=30, stop=stop)
        assert (cut.text, cut.finish_reason) == (whole.partition(whole[6:9])[0], "stop")


def test_a_conversation_goes_on_with_the_answers_message(client: Either, engine: FakeEngine) -> None:
    messages: list[dict[str, Any]] = [{"role": "user", "content": QUESTION}]
    messages.append(client.chat(messages, max_tokens=5).message)
    with client.stream([*messages, {"role": "user", "content": "And then?"}], max_tokens=5) as stream:
        assert "".join(stream) == stream.message["content"]
    assert len(engine.submitted[1].prompt_ids) > len(engine.submitted[0].prompt_ids)


def test_a_system_message_stands_in_front(client: Either, engine: FakeEngine) -> None:
    written_out = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": QUESTION}]
    client.chat(written_out, max_tokens=1)
    client.chat(QUESTION, system="Be kind.", max_tokens=1)
    list(client.stream(QUESTION, system="Be kind.", max_tokens=1))
    assert len({tuple(submitted.prompt_ids) for submitted in engine.submitted}) == 1
    with pytest.raises(ValueError, match="second"):
        client.chat(written_out, system="Be kind.")


def test_a_stream_is_the_answer(client: Either) -> None:
    whole = client.chat(QUESTION, preference=[0, 1, 1], seed=1, max_tokens=60)
    stream = client.stream(QUESTION, preference=[0, 1, 1], seed=1, max_tokens=60)
    assert (stream.text, stream.usage, stream.preference, stream.model, stream.id, stream.request_id) == (
        "", None, None, None, None, None,
    )  # fmt: skip
    pieces: list[str] = []
    for piece in stream:
        pieces.append(piece)
        assert stream.text == "".join(pieces)
        assert stream.preference == whole.preference
        assert stream.model == NAME
        assert stream.id
        assert stream.request_id
    assert len(pieces) > 10
    assert all(pieces)
    assert (stream.text, stream.usage, stream.finish_reason) == (whole.text, whole.usage, whole.finish_reason)
    assert list(stream) == []


def test_a_comparison_answers_in_the_order_of_its_preferences(client: Either) -> None:
    preferences = [{"helpful": 1}, None, [0, 0, 1], {"helpful": 1, "concise": 1}]
    seen: list[tuple[str, int]] = []

    def on_answer(given: Any) -> None:
        seen.append((given.id, threading.get_ident()))

    answers = client.compare(QUESTION, preferences, seed=1, max_tokens=9, n=2, on_answer=on_answer)
    assert [each.preference for each in answers] == [
        SPACE.as_dict(each) for each in [(1, 0, 0), SPACE.default, (0, 0, 1), (0.5, 0, 0.5)]
    ]
    for preference, given in zip(preferences, answers, strict=True):
        assert given.texts == client.chat(QUESTION, preference=preference, seed=1, max_tokens=9, n=2).texts
    assert {name for name, _ in seen} == {each.id for each in answers}
    assert {thread for _, thread in seen} == {threading.get_ident()}
    assert client.compare(QUESTION, []) == []


def test_a_comparison_asks_at_the_same_time_but_for_no_more_than_it_may(client: Either, engine: FakeEngine) -> None:
    engine.prefill_s = 0.3
    most = 0
    stop = threading.Event()

    def watch() -> None:
        nonlocal most
        while not stop.wait(0.01):
            most = max(most, engine.live)

    watcher = threading.Thread(target=watch)
    watcher.start()
    client.compare(QUESTION, [None] * 6, max_tokens=1, concurrency=3)
    stop.set()
    watcher.join()
    assert most == 3
    with pytest.raises(ValueError, match="concurrency"):
        client.compare(QUESTION, [None], concurrency=0)


def test_a_sweep_goes_over_the_servers_whole_space(client: Either) -> None:
    answers = client.sweep(QUESTION, steps=3, max_tokens=2)
    assert [each.preference for each in answers] == preference_grid(SPACE.names, 3)
    edge = client.sweep(QUESTION, steps=4, between=("helpful", "concise"), max_tokens=2)
    weights = [each.preference["concise"] for each in edge if each.preference]
    assert weights == pytest.approx([0, 1 / 3, 2 / 3, 1])


def test_one_failure_ends_a_comparison_on_the_server_too(client: Either, engine: FakeEngine) -> None:
    engine.prefill_s = 30
    with pytest.raises(BadRequestError) as failed:
        client.compare(QUESTION, [None, None, {"kind": 1}, None])
    assert failed.value.param == "preference"
    wait_until(lambda: engine.live == 0)


def test_a_hook_that_fails_ends_a_comparison_too(client: Either, engine: FakeEngine) -> None:
    engine.step_s = 0.05

    def on_answer(_given: Any) -> None:
        raise LookupError("no bar to update")

    with pytest.raises(LookupError):
        client.compare(
            QUESTION, [[1, 0, 0], [0, 1, 0], *[[0, 0, 1]] * 4], concurrency=2, max_tokens=3, on_answer=on_answer
        )
    wait_until(lambda: engine.live == 0)
    assert len(engine.submitted) < 6


def test_a_text_is_continued(client: Either) -> None:
    given = client.complete("To sharpen a knife,", preference={"concise": 1}, max_tokens=6, seed=1)
    assert given.text
    assert given.preference == {"helpful": 0.0, "harmless": 0.0, "concise": 1.0}
    assert given.usage.completion_tokens == 6
    assert given.request_id
    several = client.complete(["one", "two"], n=2, max_tokens=3, seed=1)
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]
    assert len(several.texts) == 4
    assert client.complete([5, 6, 7], max_tokens=2).choices[0].finish_reason in {"length", "stop"}


def test_what_the_server_says_of_itself(client: Either, engine: FakeEngine) -> None:
    preferences = client.preferences()
    assert preferences.names == list(SPACE.names)
    assert preferences.default == SPACE.as_dict(SPACE.default)
    assert preferences.presets == {name: SPACE.as_dict(weights) for name, weights in SPACE.presets.items()}
    assert preferences.example_prompts == list(SPACE.example_prompts)
    assert preferences.dimensions[2].description == "says it in few words"
    models = client.models()
    assert [model.id for model in models] == [NAME, f"{NAME}:base", f"{NAME}:brief", f"{NAME}:thorough"]
    assert [model.preference for model in models][:2] == [SPACE.as_dict(SPACE.default), None]
    assert client.ready()
    engine.alive = False
    assert not client.ready()
    with pytest.raises(NotFoundError) as missing:
        client.evaluation()
    assert missing.value.code == "no_evaluation"


def test_an_evaluation_is_read_whole(make_client: MakeClient) -> None:
    async def make_engine() -> FakeEngine:
        return FakeEngine()

    content = (DEMO_ADAPTER / "evaluation.json").read_bytes()
    with serving(make_engine, evaluation=content) as served:
        evaluation = make_client(served.url).evaluation()
    assert evaluation.model_dump() == json.loads(content)
    assert {len(point.rewards) for sweep in evaluation.sweeps for point in sweep.points} == {3}


def test_a_bare_base_model_has_nothing_to_sweep(make_client: MakeClient) -> None:
    async def make_engine() -> FakeEngine:
        return FakeEngine()

    with serving(make_engine, space=None) as served:
        client = make_client(served.url)
        assert client.preferences().names == []
        assert client.chat(QUESTION, max_tokens=2).preference is None
        with pytest.raises(ValueError, match="base model"):
            client.sweep(QUESTION)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"temprature": 1}, TypeError, "'temprature'.*temperature"),
        ({"preference": "brief"}, TypeError, "model id"),
        ({"preference": 3}, TypeError, "mapping"),
        ({"preference": ["0.5"]}, TypeError, "numbers"),
        ({"preference": {"helpful": True}}, TypeError, "numbers"),
        ({"preference": {"helpful": float("nan")}}, ValueError, "finite"),
        ({"preference": [float("inf")]}, ValueError, "finite"),
        ({"temperature": float("nan")}, ValueError, "JSON"),
        ({"timeout": 0}, ValueError, "timeout"),
        ({"timeout": float("inf")}, ValueError, "timeout"),
        ({"extra": {"preference": [1]}}, ValueError, "'preference'"),
        ({"extra": {"messages": []}}, ValueError, "'messages'"),
        ({"extra": {"temperature": 1}}, ValueError, "'temperature'"),
        ({"extra": {"stream": True}}, ValueError, "'stream'"),
    ],
)
def test_arguments_that_make_no_request_are_an_error_before_any_is_sent(
    client: Either, engine: FakeEngine, options: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        client.chat(QUESTION, **options)
    with pytest.raises(kind, match=words):
        client.stream(QUESTION, **options)
    assert engine.submitted == []


def test_a_stream_has_one_answer(client: Either) -> None:
    options: Any = {"n": 2}
    with pytest.raises(TypeError, match="'n'"):
        client.stream(QUESTION, **options)
    with pytest.raises(ValueError, match="'n'"):
        client.stream(QUESTION, extra={"n": 2})


def test_what_a_newer_server_says_stays_readable(make_client: MakeClient) -> None:
    body = {
        "id": "1", "created": 1, "model": "m", "preference": None, "novelty": {"a": 1}, "object": "chat.completion",
        "choices": [{"index": 0, "message": {"content": "yes", "role": "assistant"}, "finish_reason": "a new one"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2, "cached_tokens": 1},
    }  # fmt: skip
    with hostile([answer(json.dumps(body).encode())]) as server:
        given = make_client(server.url).chat(QUESTION)
    assert (given.text, given.finish_reason) == ("yes", "a new one")
    assert given.model_dump()["novelty"] == {"a": 1}
    assert given.request_id


def test_threads_may_share_a_client(server: Served) -> None:
    texts: dict[int, str] = {}
    with Panacea(server.url) as client:

        def ask(number: int) -> None:
            texts[number] = client.chat(f"{QUESTION} {number}", temperature=0, max_tokens=9).text

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert texts == {n: client.chat(f"{QUESTION} {n}", temperature=0, max_tokens=9).text for n in range(40)}
