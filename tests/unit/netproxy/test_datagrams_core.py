"""Flows: who picks a task, who sticks to it, and what ends that."""

from __future__ import annotations

from collections import OrderedDict

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from skep.domain.base import ServiceId, TaskId
from skep.domain.spec import Balance
from skep.netproxy.relay.core.balance import FIRST_EJECTION_S, Balancer
from skep.netproxy.relay.core.datagrams import FLOW_IDLE_S, Flow, Flows, Kept
from skep.netproxy.relay.core.protocol import Candidate, Listener
from skep.netproxy.relay.core.tables import Entry

LIMIT = 4


def entry(*names: str, balance: Balance = Balance.ROUND_ROBIN) -> Entry:
    candidates = tuple(Candidate(task_id=TaskId(name), address="127.0.16.1") for name in names)
    listener = Listener(
        host="127.0.0.1",
        port=53,
        protocol="udp",
        service_id=ServiceId("s"),
        service_name="web",
        target=5353,
        balance=balance,
        candidates=candidates,
    )
    return Entry(listener, Balancer(balance, candidates))


def ids(*names: str) -> tuple[TaskId, ...]:
    return tuple(map(TaskId, names))


def opened(flows: Flows[str], now: float, client: str, to: Entry) -> Flow[str]:
    flow = flows.open(now, client, to, ())
    flows.check_invariants()
    assert flow is not None
    return flow


def test_clients_take_turns_and_stick() -> None:
    flows: Flows[str] = Flows()
    to = entry("t1", "t2")
    first, second = opened(flows, 0.0, "a", to), opened(flows, 0.0, "b", to)
    assert (first.candidate.task_id, second.candidate.task_id) == ("t1", "t2")
    assert flows.find(1.0, "a") is first
    assert flows.find(1.0, "b") is second
    assert flows.find(1.0, "c") is None


def test_a_flow_without_datagrams_either_way_expires() -> None:
    flows: Flows[str] = Flows()
    to = entry("t1")
    first, second = opened(flows, 0.0, "a", to), opened(flows, 1.0, "b", to)
    assert flows.next_expiry() == FLOW_IDLE_S
    flows.touch(2.0, first)
    flows.check_invariants()
    assert flows.next_expiry() == 1.0 + FLOW_IDLE_S
    assert flows.expired(1.0 + FLOW_IDLE_S - 0.01) == []
    assert flows.expired(1.0 + FLOW_IDLE_S) == [second]
    assert flows.expired(2.0 + FLOW_IDLE_S) == [second, first]
    for flow in (first, second):
        flows.end(flow)
    assert to.balancer.active(TaskId("t1")) == 0
    assert flows.next_expiry() is None


def test_a_retired_flow_takes_no_datagram_but_still_answers() -> None:
    flows: Flows[str] = Flows()
    to = entry("t1", "t2")
    old = opened(flows, 0.0, "a", to)
    flows.retire(lambda flow: flow.candidate.task_id != "t1")
    flows.check_invariants()
    assert old in flows
    assert flows.find(1.0, "a") is None
    new = opened(flows, 1.0, "a", to)
    assert new.candidate.task_id == "t2"
    flows.touch(2.0, old)
    flows.end(old)
    flows.check_invariants()
    assert flows.find(3.0, "a") is new


def test_a_task_that_refused_is_tried_last() -> None:
    flows: Flows[str] = Flows()
    to = entry("t1", "t2")
    flow = opened(flows, 0.0, "a", to)
    flows.refuse(0.0, flow)
    assert [opened(flows, 0.0, c, to).candidate.task_id for c in "abc"] == ["t2"] * 3


def test_an_answer_is_what_proves_a_task_to_be_back() -> None:
    flows: Flows[str] = Flows()
    to = entry("t1", "t2")
    flows.refuse(0.0, opened(flows, 0.0, "a", to))
    ejected_for_s = []
    for at in (10.0, 100.0):
        flow = flows.open(at, "b", to, ids("t2"))
        assert flow is not None
        if at == 100.0:
            flows.answered(at, flow)
        assert flows.refuse(at, flow)
        waited_s = 0.0
        while taken(to, at + waited_s) != "t1":
            waited_s += 1.0
        ejected_for_s.append(waited_s)
    # Longer each time, until it has answered.
    assert ejected_for_s == [2 * FIRST_EJECTION_S, FIRST_EJECTION_S]


def taken(to: Entry, now: float) -> str:
    """ "t1" where both tasks get a client, "t2" while it gets all."""
    chosen = [to.balancer.pick(now, ()) for _ in range(2)]
    for candidate in chosen:
        assert candidate is not None
        to.balancer.release(candidate.task_id)
    return "t1" if len({c.task_id for c in chosen if c is not None}) == 2 else "t2"


def test_none_is_left_when_all_were_tried() -> None:
    flows: Flows[str] = Flows()
    assert flows.open(0.0, "a", entry("t1", "t2"), ids("t1", "t2")) is None
    assert flows.open(0.0, "a", entry(), ()) is None
    assert len(flows) == 0


def test_the_flow_that_was_quiet_for_longest_makes_room() -> None:
    flows: Flows[str] = Flows(limit=2)
    to = entry("t1")
    first, second = opened(flows, 0.0, "a", to), opened(flows, 1.0, "b", to)
    assert flows.is_full
    flows.find(2.0, "a")
    assert flows.oldest() is second
    flows.end(second)
    assert not flows.is_full
    assert flows.oldest() is first


def test_what_is_kept_has_a_bound_and_the_newest_stay() -> None:
    kept = Kept(limit_bytes=10)
    kept.put("a", b"12345")
    kept.put("b", b"12345")
    kept.put("a", b"123")
    kept.put("c", b"1234")
    kept.check_invariants()
    assert [kept.take(flow) for flow in "abc"] == [b"123", None, b"1234"]
    kept.put("a", b"12345678901")
    assert kept.take("a") is None
    assert kept.size_bytes == 0


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.binary(max_size=6) | st.none())))
def test_kept_is_what_a_plain_list_would_keep(steps: list[tuple[str, bytes | None]]) -> None:
    kept, model = Kept(limit_bytes=10), OrderedDict[str, bytes]()
    for flow, data in steps:
        if data is None:
            assert kept.take(flow) == model.pop(flow, None)
        else:
            kept.put(flow, data)
            model.pop(flow, None)
            model[flow] = data
            while sum(map(len, model.values())) > 10:
                model.popitem(last=False)
        kept.check_invariants()
    assert {flow: kept.take(flow) for flow in "abcd"} == {flow: model.get(flow) for flow in "abcd"}


class FlowsMachine(RuleBasedStateMachine):
    """Anything that can happen, in any order: the invariants hold, and no count is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.flows: Flows[str] = Flows(limit=LIMIT)
        self.entry = entry("t1", "t2", "t3", balance=Balance.LEAST_CONNECTIONS)
        self.now = 0.0

    @rule(client=st.sampled_from("abcdef"), tried=st.sets(st.sampled_from(("t1", "t2", "t3"))))
    def datagram(self, client: str, tried: set[TaskId]) -> None:
        if self.flows.find(self.now, client) is None:
            if self.flows.is_full:
                self.flows.end(self.flows.oldest())
            flow = self.flows.open(self.now, client, self.entry, tried)
            assert (flow is None) == (len(tried) == 3)
            assert flow is None or flow.candidate.task_id not in tried

    @precondition(lambda self: len(self.flows) > 0)
    @rule(data=st.data(), is_refusal=st.booleans())
    def ended(self, data: st.DataObject, is_refusal: bool) -> None:
        flow = data.draw(st.sampled_from(self.flows.all()))
        if is_refusal:
            self.flows.refuse(self.now, flow)
        else:
            self.flows.end(flow)

    @precondition(lambda self: len(self.flows) > 0)
    @rule(data=st.data())
    def answered(self, data: st.DataObject) -> None:
        self.flows.touch(self.now, data.draw(st.sampled_from(self.flows.all())))

    @rule(task_id=st.sampled_from(("t1", "t2", "t3")))
    def withdrawn(self, task_id: str) -> None:
        self.flows.retire(lambda flow: flow.candidate.task_id != task_id)

    @rule(seconds=st.sampled_from((0.5, 20.0, FLOW_IDLE_S)))
    def time_passed(self, seconds: float) -> None:
        self.now += seconds
        for flow in self.flows.expired(self.now):
            assert self.now - flow.last_at >= FLOW_IDLE_S
            self.flows.end(flow)
        assert all(self.now - flow.last_at < FLOW_IDLE_S for flow in self.flows.all())

    @invariant()
    def nothing_is_lost(self) -> None:
        self.flows.check_invariants()
        self.entry.balancer.check_invariants()
        active = sum(self.entry.balancer.active(TaskId(t)) for t in ("t1", "t2", "t3"))
        assert active == len(self.flows)


TestFlows = FlowsMachine.TestCase
