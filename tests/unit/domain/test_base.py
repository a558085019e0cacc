"""What every domain object shares."""

from __future__ import annotations

import msgspec
import pytest

from skep.domain.base import Struct, decode, encode, lookup, pairs, replace
from skep.domain.spec import Port, Resources


def test_pairs_are_sorted_and_a_later_value_wins() -> None:
    assert pairs([("b", "1"), ("a", "2"), ("b", "3")]) == (("a", "2"), ("b", "3"))
    assert pairs({"b": "1", "a": "2"}) == (("a", "2"), ("b", "1"))
    assert (lookup((("a", "2"),), "a"), lookup((("a", "2"),), "b")) == ("2", None)


def test_objects_are_immutable_and_hash_by_value() -> None:
    port = Port(target=80)
    with pytest.raises(AttributeError):
        port.target = 81  # type: ignore[misc]
    assert replace(port, target=81) == Port(target=81)
    assert len({Port(target=80), Port(target=80), Port(target=81)}) == 2


def test_zero_on_disk_is_a_value_and_absence_another() -> None:
    for value in (Resources(), Resources(cpu_nano=0), Resources(cpu_nano=5)):
        assert decode(Resources, encode(value)) == value


def test_a_reader_skips_fields_it_does_not_know_and_takes_defaults_for_missing_ones() -> None:
    class Newer(Struct, frozen=True, kw_only=True):
        target: int
        color: str = ""

    class Older(Struct, frozen=True, kw_only=True):
        target: int
        published: int = 7

    assert decode(Older, encode(Newer(target=1, color="red"))) == Older(target=1)


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", b"\x80", msgspec.msgpack.encode({"target": "eighty"})]
)
def test_what_is_not_an_object_is_refused(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(Port, data)
