"""Runs of backends in one map: nobody's run is touched before nobody can be drawing from it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from skep.netproxy.kernel.core.rotation import (
    BACKEND_LIMIT,
    BLOCK,
    MENDED_FROM,
    Drawn,
    Rotations,
    Target,
    turn,
    with_gone,
)

A, B, C = "10.0.0.1", "10.0.0.2", "10.0.0.3"

targets = st.dictionaries(
    st.sampled_from("stuvwxyz"),
    st.builds(
        Target,
        st.lists(st.sampled_from((A, B, C)), min_size=1, max_size=3, unique=True).map(tuple),
        st.sampled_from((None, 80, 81)),
    ),
)


def test_the_first_run_starts_a_block_and_the_next_is_written_beside_it() -> None:
    first = turn(Rotations(), {"web": Target((A, B), 80)})
    assert first.after.drawn == {"web": Drawn(0, 2, 80)}
    assert (first.added, first.put, first.taken) == (("web",), {0: A, 1: B}, ())

    second = turn(first.after, {"web": Target((C,), 80)})
    assert second.after.drawn == {"web": Drawn(BACKEND_LIMIT, 1, 80)}
    assert (second.changed, second.put, second.taken) == (("web",), {BACKEND_LIMIT: C}, ())

    # Only by now is nobody drawing from the first.
    third = turn(second.after, {"web": Target((A,), 80)})
    assert third.after.drawn == {"web": Drawn(0, 1, 80)}
    assert (third.put, third.taken) == ({0: A}, (0, 1))


def test_what_is_so_already_is_left() -> None:
    now = turn(Rotations(), {"web": Target((A,)), "db": Target((B,))}).after
    again = turn(now, {"db": Target((B,)), "web": Target((A,))})
    assert (again.added, again.changed, again.removed, again.put) == ((), (), (), {})
    assert again.after == now


def test_a_block_is_not_given_away_while_something_is_in_it() -> None:
    now = turn(Rotations(), {"web": Target((A,)), "db": Target((B,))}).after
    gone = turn(now, {"web": None})
    assert gone.removed == ("web",)
    next_one = turn(gone.after, {"cache": Target((C,))})
    assert next_one.after.drawn["cache"] == Drawn(2 * BLOCK, 1)
    assert next_one.taken == (0,)
    last = turn(next_one.after, {"web": Target((C,))})
    assert last.after.drawn["web"] == Drawn(0, 1)


def test_the_rule() -> None:
    assert Drawn(8192, 3).rule() == "dnat to numgen inc mod 3 offset 8192 map @backends"
    assert Drawn(0, 1, 80).rule() == "dnat to numgen inc mod 1 offset 0 map @backends : 80"


@given(st.lists(targets, min_size=1, max_size=8))
def test_every_run_outlives_the_turn_that_ends_it(steps: list[dict[str, Target]]) -> None:
    now: Rotations[str] = Rotations()
    kernel: dict[int, str] = {}
    for wanted in steps:
        made = turn(now, with_gone(now, wanted))
        old_runs = [
            number
            for drawn in now.drawn.values()
            for number in range(drawn.offset, drawn.offset + drawn.count)
        ]
        was = {number: kernel[number] for number in old_runs}
        for number in made.taken:
            del kernel[number]
        assert not set(made.put) & set(kernel)
        kernel |= made.put
        # A packet that is still in an old chain finds what it would have found.
        assert {number: kernel.get(number) for number in old_runs} == was
        made.after.check_invariants()
        assert kernel == made.after.elements
        assert places(made.after) == {
            key: (each.port, frozenset(each.backends)) for key, each in wanted.items()
        }
        now = made.after


MANY = [f"10.0.{n // 250}.{n % 250 + 1}" for n in range(MENDED_FROM + 6)]


def places(runs: Rotations[str]) -> dict[str, tuple[int | None, frozenset[str]]]:
    """Where each service's connections go."""
    found = {}
    for key in runs.drawn:
        target = runs.target(key)
        assert target is not None
        found[key] = (target.port, frozenset(target.backends))
        assert len(target.backends) == len(found[key][1])
    return found


def test_a_long_run_is_mended_where_it_stands() -> None:
    whole = tuple(MANY)
    now = turn(Rotations(), {"web": Target(whole)}).after
    last = len(whole) - 1
    fewer = turn(now, {"web": Target(whole[:3] + whole[4:])})
    assert (fewer.put, fewer.taken) == ({3: whole[last]}, (3,))
    assert (fewer.changed, fewer.mended) == (("web",), ())
    # The last number has gone from the rule, and is left for whoever is about to look it up.
    assert fewer.after.elements[last] == whole[last]
    again = turn(fewer.after, {"web": Target(whole)})
    assert (again.put, again.taken) == ({last: whole[3]}, (last,))
    other = turn(again.after, {"web": Target((*whole[1:], "10.1.1.1"))})
    assert (other.put, other.taken) == ({0: "10.1.1.1"}, (0,))
    # As many as before: the rule stays, and with it the turn that it is at.
    assert (other.changed, other.mended) == ((), ("web",))


def test_the_last_of_a_long_run_goes_and_comes_back() -> None:
    """What is left of it is what is to be put there, and goes with the next turn all the same."""
    whole = tuple(MANY)
    now = turn(Rotations(), {"web": Target(whole)}).after
    fewer = turn(now, {"web": Target(whole[:-1])})
    again = turn(fewer.after, {"web": Target(whole)})
    last = len(whole) - 1
    assert (again.put, again.taken) == ({last: whole[last]}, (last,))
    again.after.check_invariants()


long_targets = st.dictionaries(
    st.sampled_from("st"),
    st.builds(
        Target,
        # All but some, which may leave too few for a run that is mended.
        st.sets(st.sampled_from(MANY), max_size=8).map(
            lambda gone: tuple(each for each in MANY if each not in gone)
        ),
        st.sampled_from((None, 80)),
    ),
)


@given(st.lists(long_targets, min_size=1, max_size=6))
def test_every_number_of_a_long_run_outlives_the_turn_that_ends_it(
    steps: list[dict[str, Target]],
) -> None:
    now: Rotations[str] = Rotations()
    kernel: dict[int, str] = {}
    for wanted in steps:
        made = turn(now, with_gone(now, wanted))
        for number in made.taken:
            del kernel[number]
        assert not set(made.put) & set(kernel)
        kernel |= made.put
        for key, drawn in now.drawn.items():
            # A packet that is still in an old chain finds what its service has, or had.
            before, after = now.target(key), made.after.target(key)
            known = {*(before.backends if before else ()), *(after.backends if after else ())}
            assert {kernel.get(number) for number in drawn.numbers} <= known
        made.after.check_invariants()
        assert kernel == made.after.elements
        assert places(made.after) == {
            key: (each.port, frozenset(each.backends)) for key, each in wanted.items()
        }
        now = made.after
