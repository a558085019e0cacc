"""Which tasks are attached, and where each set of networks asks for names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skep.domain.attach import AttachRequest
from skep.domain.base import NetworkId, ServiceId, TaskId, replace
from skep.domain.endpoints import NetworkEntry
from skep.domain.objects import Attachment
from skep.env import Retryable
from skep.netproxy.core.attachments import SET_LIMIT, Attachments


def request(task: str, *networks: str) -> AttachRequest:
    return AttachRequest(
        task_id=TaskId(task),
        service_id=ServiceId("s"),
        service_name="web",
        attachments=tuple(
            Attachment(network_id=NetworkId(each), address=f"10.0.0.{place + 2}")
            for place, each in enumerate(networks)
        ),
    )


def test_tasks_on_the_same_networks_ask_at_the_same_place() -> None:
    known = Attachments()
    assert known.add(request("t1", "a", "b")).set_number == 0
    assert known.add(request("t2", "a")).set_number == 1
    assert known.add(request("t3", "a", "b")).set_number == 0
    # The order is that in which names are looked for, and so is part of the set.
    assert known.add(request("t4", "b", "a")).set_number == 2
    known.check_invariants()
    assert known.networks() == {"a", "b"}
    assert known.sets() == {0: ("a", "b"), 1: ("a",), 2: ("b", "a")}


def test_a_number_stays_until_the_last_task_of_its_set_is_gone() -> None:
    known = Attachments()
    for task, network in (("t1", "a"), ("t2", "a"), ("t3", "b")):
        known.add(request(task, network))
    assert known.drop((TaskId("t1"), TaskId("nobody")))
    assert known.add(request("t4", "c")).set_number == 2
    known.drop((TaskId("t2"),))
    assert known.add(request("t5", "d")).set_number == 0
    assert not known.drop((TaskId("t2"),))
    again = Attachments(known.by_task.values())
    assert again.sets() == known.sets()


def test_a_network_that_was_encrypted_is_so_whatever_is_told_later() -> None:
    sealed = NetworkEntry(
        network_id=NetworkId("a"), name="a", vni=9, subnet="10.0.1.0/24", is_encrypted=True
    )
    other = replace(sealed, network_id=NetworkId("b"), is_encrypted=False)
    known = Attachments()
    known.add(request("t1", "a", "b"), (sealed, other))
    told = {
        sealed.network_id: replace(sealed, name="new", is_encrypted=False),
        other.network_id: replace(other, is_encrypted=True),
    }
    assert known.entries(told) == {
        "a": replace(sealed, name="new"),
        "b": replace(other, is_encrypted=True),
    }
    assert known.entries({}) == {"a": sealed, "b": other}


def test_more_sets_than_addresses_are_refused_for_now() -> None:
    known = Attachments()
    for number in range(SET_LIMIT):
        known.add(request(f"t{number}", f"n{number}"))
    with pytest.raises(Retryable, match="255 different sets"):
        known.add(request("one more", "another"))
    known.check_invariants()


def test_what_is_attached_beside_the_held_tasks() -> None:
    known = Attachments()
    for task in ("t2", "t1", "t3"):
        known.add(request(task, "a"))
    assert known.beside({TaskId("t3")}) == ("t1", "t2")


@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from("tuvw"), st.permutations("abc"), st.integers(0, 3))
    )
)
def test_whatever_comes_a_set_has_one_number(
    steps: list[tuple[bool, str, list[str], int]],
) -> None:
    known = Attachments()
    for is_added, task, networks, count in steps:
        if is_added:
            known.add(request(task, *networks[:count]))
        else:
            known.drop((TaskId(task),))
        known.check_invariants()
