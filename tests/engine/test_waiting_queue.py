"""Tenants take turns, whatever one of them sends; nobody who waits is lost, and whoever waited too long is told."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from panacea.engine.request import Request
from panacea.engine.sampling_params import SamplingParams
from panacea.engine.sequence import Sequence
from panacea.engine.waiting_queue import WaitingQueue
from tests.engine.fake_model import answer, make_engine

PARAMS = SamplingParams(max_tokens=4)


def sequence(name: str, tenant: str = "", arrived_at: float = 0.0) -> Sequence:
    return Sequence(name, Request([1, 2, 3], None, PARAMS, tenant=tenant), arrived_at=arrived_at)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["add", "add", "pop", "remove", "put back"]))))
def test_a_request_waits_for_one_of_each_other_tenant_for_each_of_its_own(moves: list[tuple[str, str]]) -> None:
    queue = WaitingQueue()
    popped: list[str] = []
    others_before: dict[Sequence, int] = {}  # how many of other tenants may still come before it
    waiting: list[Sequence] = []
    for number, (tenant, move) in enumerate(moves):
        if move == "add":
            new = sequence(str(number), tenant)
            own = sum(each.request.tenant == tenant for each in waiting) + 1
            others_before[new] = own * (len("abcd") - 1)
            queue.append(new)
            waiting.append(new)
        elif move == "pop" and waiting:
            first = queue.first
            assert queue.pop() is first
            assert first is next(each for each in waiting if each.request.tenant == first.request.tenant), (
                "its tenant's oldest"
            )
            waiting.remove(first)
            popped.append(first.request_id)
            for each in waiting:
                others_before[each] -= each.request.tenant != first.request.tenant
                assert others_before[each] >= 0, "it has waited for more than its turn"
        elif move == "remove" and waiting:
            gone = waiting.pop(number % len(waiting))
            queue.remove(gone)
        elif move == "put back" and popped:
            back = sequence(popped[-1], tenant)
            queue.requeue(back)
            assert queue.first is back
            assert queue.pop() is back
        assert len(queue) == len(waiting)
        assert sorted(each.request_id for each in queue) == sorted(each.request_id for each in waiting)


def test_one_tenants_requests_are_first_come_first_served() -> None:
    queue = WaitingQueue()
    for number in range(5):
        queue.append(sequence(str(number)))
    assert [queue.pop().request_id for _ in range(5)] == list("01234")


def test_a_flood_of_one_tenant_keeps_another_waiting_for_one_turn_alone() -> None:
    engine, model = make_engine(num_blocks=16, max_batch=2, max_step_tokens=16)
    for number in range(40):
        engine.add(f"a{number}", Request([1, 2, number + 1], (0.5, 0.5), PARAMS, tenant="a"))
    for _ in range(3):
        engine.step()
    engine.add("b", Request([5, 6, 7], (1.0, 0.0), PARAMS, tenant="b"))
    finished: list[str] = []
    tokens: list[int] = []
    while "b" not in finished:
        for output in engine.step():
            tokens += [output.token_id] * (output.request_id == "b")
            finished += [output.request_id] * (output.finish_reason is not None)
    assert len(finished) <= 4, "those in the batch when it came, and one that began beside it"
    assert tokens == answer([5, 6, 7], (1.0, 0.0), 4)
    assert engine.stats.waiting > 30
    engine.check_integrity()
    assert model.steps


def test_those_who_waited_too_long_are_dropped_and_nobody_else() -> None:
    queue = WaitingQueue()
    old = [sequence(f"old {tenant}", tenant, arrived_at=10.0) for tenant in "ab"]
    back = sequence("back", "a", arrived_at=1.0)
    for each in (*old, sequence("new", "a", arrived_at=20.0)):
        queue.append(each)
    queue.requeue(back)  # it has had its first step
    assert queue.arrived_before(15.0) == old
    assert queue.arrived_before(10.0) == []


def test_an_engine_drops_whom_it_kept_waiting_for_too_long() -> None:
    engine, _ = make_engine(max_batch=1, max_step_tokens=8)
    assert engine.drop_late() == []  # no limit
    engine._queue_timeout_s = 0.0  # pyright: ignore[reportPrivateUsage]
    engine.add("runs", Request([1, 2, 3], None, replace(PARAMS, max_tokens=2)))
    engine.step()
    engine.add("waits", Request([1, 2, 3], None, PARAMS))
    engine.step()
    assert [late.request_id for late in engine.drop_late()] == ["waits"]
    assert not engine.has_work
    assert engine.stats.free_blocks == 8
    engine.check_integrity()
