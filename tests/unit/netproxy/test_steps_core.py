"""Mappings that know in what they differ from the ones they were made of."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from skep.netproxy.core.steps import Stepped, changed

CHANGES = st.dictionaries(st.sampled_from("abcd"), st.none() | st.text("xy", max_size=2))


@given(st.lists(CHANGES, max_size=6))
def test_a_step_knows_what_it_changes(steps: list[dict[str, str | None]]) -> None:
    now: Stepped[str, str] = Stepped()
    plain: dict[str, str] = {}
    all_of_them = [now]
    for changes in steps:
        before, was = now, dict(plain)
        now = now.after(changes)
        for key, value in changes.items():
            if value is None:
                plain.pop(key, None)
            else:
                plain[key] = value
        assert (before, now) == (was, plain)
        assert (now is before) == (plain == was)
        differing = {key for key in was.keys() | plain.keys() if was.get(key) != plain.get(key)}
        assert set(changed(before, now)) == differing
        all_of_them.append(now)
    # More than one step apart, back, or of no kin, all of them are looked at.
    for one in all_of_them:
        for other in (*all_of_them, dict(plain)):
            found = changed(one, other)
            differing = {k for k in one.keys() | other.keys() if one.get(k) != other.get(k)}
            assert differing <= set(found)
            assert len(set(found)) == len(list(found))


def test_what_is_equal_but_another_object_has_changed() -> None:
    one, other = ("a", "b"), tuple("ab")
    assert changed({1: one}, {1: one}) == []
    assert changed({1: one}, {1: other}) == [1]
