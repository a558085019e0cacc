"""Times of output: what marks say, and what is left of them when files are torn."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from skep.worker.engine.core import timeline
from skep.worker.engine.core.timeline import RECORD_BYTES, Base, Mark, Timeline, Tracker

# Looks at a live file: it grows, is truncated by its task, is rotated; the clock may step back.
ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(("grow", "truncate", "rotate", "still")),
        st.integers(1, 5000),
        st.integers(-50, 1000),
    ),
    max_size=40,
)


def followed(actions: list[tuple[str, int, int]]) -> tuple[list[timeline.Note], Tracker]:
    tracker = timeline.tracker(Timeline())
    notes: list[timeline.Note] = []
    size, now = 0, 10_000
    for what, amount, passed in actions:
        now += passed
        match what:
            case "grow":
                size += amount
            case "truncate":
                size = min(amount, size) - 1 if size else 0
            case "rotate":
                cut = min(amount, max(0, size - 1))
                notes += tracker.rotated(cut, cut)
                size -= cut
        before = tracker.end
        notes += tracker.looked(size, now, now, is_same=what != "truncate")
        assert tracker.end >= before
        assert tracker.base + tracker.size == tracker.end or not tracker.size
    return notes, tracker


def test_a_line_has_the_time_of_the_first_mark_that_reaches_its_end() -> None:
    line = Timeline()
    for note in (Mark(100, 10), Mark(200, 25)):
        line.add(note)
    assert [line.time_of(end, 0) for end in (1, 10, 11, 25)] == [100, 100, 200, 200]
    assert line.time_of(26, 150) == 200
    assert line.time_of(26, 250) == 250
    assert [line.begin_of(at) for at in (0, 100, 101, 200, 201)] == [0, 0, 10, 10, 25]


def test_a_look_takes_the_files_own_time_unless_the_clock_was_set() -> None:
    tracker = timeline.tracker(Timeline())
    assert look(tracker, 5, 100, 150) == [Mark(100, 5)]
    assert look(tracker, 5, 100, 160) == []
    assert look(tracker, 9, 999, 200) == [Mark(200, 9)]
    assert look(tracker, 12, 50, 60) == [Mark(200, 12)]


def look(
    tracker: Tracker, size: int, changed_ns: int, now_ns: int, *, is_same: bool = True
) -> list[timeline.Note]:
    return tracker.looked(size, changed_ns, now_ns, is_same=is_same)


def test_a_task_that_truncates_its_output_goes_on_after_what_was_known() -> None:
    tracker = timeline.tracker(Timeline())
    look(tracker, 5, 100, 150)
    assert look(tracker, 2, 200, 200) == [Base(5, 0), Mark(200, 7)]
    # As `echo $i > /dev/stderr` does each time, also when its line grows longer.
    assert look(tracker, 2, 300, 300, is_same=False) == [Base(7, 0), Mark(300, 9)]
    assert look(tracker, 3, 400, 400, is_same=False) == [Base(9, 0), Mark(400, 12)]
    # A write that is under way, or has failed, changes the file's time and not its size.
    assert look(tracker, 3, 500, 500) == []


def test_rotation_is_no_truncation() -> None:
    tracker = timeline.tracker(Timeline())
    look(tracker, 5000, 100, 100)
    tracker.tail = b"x" * 64
    assert tracker.rotated(4096, 4096) == [Base(4096, 4096)]
    assert tracker.tail == b"x" * 64
    assert look(tracker, 904, 110, 120) == []
    assert look(tracker, 1000, 130, 140) == [Mark(130, 5096)]
    # A hole in the place of what was moved: the file keeps its size, and loses these bytes.
    assert tracker.rotated(990, 0) == [Base(4096, 5086)]
    assert tracker.tail == b"x" * 10
    assert look(tracker, 1000, 150, 160) == []
    # It had grown before it was cut.
    tracker.rotated(1010, 1010)
    assert (tracker.tail, tracker.size) == (b"", 0)


@given(ACTIONS)
def test_what_is_written_is_read_and_goes_on(actions: list[tuple[str, int, int]]) -> None:
    notes, tracker = followed(actions)
    line = timeline.decode(timeline.header() + timeline.encode(notes))
    assert line is not None
    again = timeline.tracker(line)
    assert (again.end, again.base, again.moved) == (tracker.end, tracker.base, tracker.moved)
    assert list(line.walls) == sorted(line.walls)
    assert list(line.ends) == sorted(set(line.ends))
    compact = timeline.decode(timeline.header() + timeline.encode(line.notes()))
    assert compact == line


@given(ACTIONS, st.data())
def test_nothing_that_is_torn_or_spoilt_is_an_error(
    actions: list[tuple[str, int, int]], data: st.DataObject
) -> None:
    notes, _ = followed(actions)
    whole = bytearray(timeline.header() + timeline.encode(notes))
    for _ in range(data.draw(st.integers(0, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    torn = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    line = timeline.decode(torn)
    if line is None:
        assert torn[:RECORD_BYTES] != timeline.header()
        return
    kept = {note.end: note.wall_ns for note in notes if isinstance(note, Mark)}
    # Whatever is left is true.
    assert all(kept[end] == wall for wall, end in zip(line.walls, line.ends, strict=True))


@given(st.binary(max_size=300))
def test_any_file_at_all_can_be_read(data: bytes) -> None:
    timeline.decode(data)
    timeline.decode(timeline.header() + data)


@given(ACTIONS, st.integers(0, 100_000))
def test_thinning_makes_times_later_never_earlier(
    actions: list[tuple[str, int, int]], offset: int
) -> None:
    notes, _ = followed(actions)
    line, thin = Timeline(), Timeline()
    for note in notes:
        line.add(note)
        thin.add(note)
    thin.thin()
    assert len(thin.walls) == len(line.walls) - (len(line.walls) // 2 + 1) // 2
    assert thin.last_ns == line.last_ns
    assert thin.time_of(offset, 0) >= line.time_of(offset, 0)


@given(ACTIONS, st.integers(0, 100_000))
def test_forgetting_what_is_dropped_changes_no_time_after_it(
    actions: list[tuple[str, int, int]], offset: int
) -> None:
    notes, _ = followed(actions)
    line, less = Timeline(), Timeline()
    for note in notes:
        line.add(note)
        less.add(note)
    less.forget_before(offset)
    for end in range(offset, offset + 50):
        assert less.time_of(end, 0) == line.time_of(end, 0)
    assert less.end == line.end
