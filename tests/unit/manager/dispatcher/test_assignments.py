"""What sessions' sets hold: tasks, and the files and logins that those need."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from skep.api import codec
from skep.domain.base import ServiceId, TaskId, replace
from skep.domain.objects import Task, TaskStatus
from skep.domain.session import (
    Assignment,
    AssignmentKind,
    AssignmentSet,
    FileKind,
    GivenFile,
    GivenLogin,
    LeaderMessage,
)
from skep.domain.spec import RunSpec, ServiceSpec, TaskSpec
from skep.domain.states import DesiredState, TaskState
from skep.domain.storage import CONFIG_LIMIT_BYTES, FileUse
from skep.manager.dispatcher.core.assignments import FRAME_ASSIGNMENTS, FRAME_BYTES, WorkerSet
from tests.unit.manager.build import service_spec, task
from tests.unit.manager.dispatcher.support import DESK, Desk, given_file

MIB = 1024 * 1024


def plain(of: Task) -> Assignment:
    return Assignment(task=of, spec=service_spec())


def using(
    *, configs: str = "", secrets: str = "", image: str = "", engine: str = "docker"
) -> ServiceSpec:
    def uses(ids: str) -> tuple[FileUse, ...]:
        return tuple(FileUse(name=f"name-{id_}", id=id_) for id_ in ids)

    run = RunSpec(image=image, command=("serve",), configs=uses(configs), secrets=uses(secrets))
    return ServiceSpec(name="web", task=TaskSpec(run=run, engine=engine))


def of(service: str, id_: str, desired: DesiredState = DesiredState.RUNNING) -> Task:
    return task(id_, TaskState.ASSIGNED, desired, service_id=ServiceId(service))


def ended(row: Task) -> Task:
    return replace(row, status=TaskStatus(state=TaskState.FAILED))


# ----------------------------------------------------------------------------------- tasks


def test_the_first_set_is_complete_and_the_next_are_what_has_changed() -> None:
    told = WorkerSet()
    a, b, c = (task(id_, TaskState.ASSIGNED) for id_ in "abc")
    assert told.complete([a, b], DESK) == [
        AssignmentSet(kind=AssignmentKind.COMPLETE, sequence=1, assignments=(plain(a), plain(b)))
    ]
    stopped = replace(a, desired_state=DesiredState.SHUTDOWN)
    assert told.increment([stopped, c], DESK) == [
        AssignmentSet(
            kind=AssignmentKind.INCREMENT,
            sequence=2,
            assignments=(plain(stopped), plain(c)),
            removed=(b.id,),
        )
    ]
    assert told.increment([stopped, c], DESK) == []
    assert told.sequence == 2


def test_a_status_alone_is_not_told_back() -> None:
    told = WorkerSet()
    told.complete([task("a", TaskState.ASSIGNED)], DESK)
    assert told.increment([task("a", TaskState.RUNNING)], DESK) == []


def test_an_empty_worker_is_told_so() -> None:
    assert WorkerSet().complete([], DESK) == [
        AssignmentSet(kind=AssignmentKind.COMPLETE, sequence=1)
    ]


def test_a_big_set_comes_in_frames_under_one_number() -> None:
    tasks = [task(f"t{n:03}", TaskState.ASSIGNED) for n in range(2 * FRAME_ASSIGNMENTS + 1)]
    told = WorkerSet()
    frames = told.complete(tasks, DESK)
    assert [len(frame.assignments) for frame in frames] == [50, 50, 1]
    assert [frame.is_partial for frame in frames] == [True, True, False]
    assert {frame.sequence for frame in frames} == {1}
    removal = told.increment([], DESK)
    assert [len(frame.removed) for frame in removal] == [101]


@settings(deadline=None)
@given(
    st.lists(
        st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(DesiredState)),
        min_size=1,
        max_size=8,
    )
)
def test_a_worker_that_applies_every_set_holds_what_it_must(
    states: list[dict[str, DesiredState]],
) -> None:
    told, held = WorkerSet(), dict[TaskId, DesiredState]()
    for sequence, state in enumerate(states):
        tasks = [task(id_, TaskState.ASSIGNED, desired) for id_, desired in state.items()]
        frames = told.increment(tasks, DESK) if sequence else told.complete(tasks, DESK)
        for frame in frames:
            for task_id in frame.removed:
                del held[task_id]
            held |= {each.task.id: each.task.desired_state for each in frame.assignments}
        assert held == state == told.told


# ------------------------------------------------------------------------------------- files


def desk() -> Desk:
    return Desk(
        specs={
            ServiceId("a"): using(configs="c", secrets="s"),
            ServiceId("b"): using(secrets="s"),
            ServiceId("p"): service_spec(),
        },
        files={"c": b"config", "s": b"secret", "other": b"nobody's"},
    )


C = given_file(FileKind.CONFIG, "c", b"config")
S = given_file(FileKind.SECRET, "s", b"secret")


def test_files_travel_with_the_first_task_that_uses_them_and_go_with_the_last() -> None:
    told, source = WorkerSet(), desk()
    [first] = told.complete([of("p", "t0")], source)
    assert (first.files, first.files_removed) == ((), ())
    [second] = told.increment([of("p", "t0"), of("b", "t1")], source)
    assert (second.files, [each.task.id for each in second.assignments]) == ((S,), ["t1"])
    [third] = told.increment([of("p", "t0"), of("b", "t1"), of("a", "t2")], source)
    assert third.files == (C,)
    [fourth] = told.increment([of("p", "t0"), of("a", "t2")], source)
    assert (fourth.files, fourth.files_removed) == ((), ())
    stopped = of("a", "t2", DesiredState.SHUTDOWN)
    [fifth] = told.increment([of("p", "t0"), stopped], source)
    assert (fifth.files, fifth.files_removed) == ((), ("c", "s"))
    assert told.increment([of("p", "t0"), stopped], source) == []


def test_a_task_that_has_ended_needs_its_files_no_more_and_nothing_else_is_said() -> None:
    told, source = WorkerSet(), desk()
    told.complete([of("b", "t1")], source)
    assert told.increment([ended(of("b", "t1"))], source) == [
        AssignmentSet(kind=AssignmentKind.INCREMENT, sequence=2, files_removed=("s",))
    ]
    [again] = told.increment([ended(of("b", "t1")), of("b", "t2")], source)
    assert again.files == (S,)


def test_a_complete_set_has_the_files_of_living_tasks_alone() -> None:
    source = desk()
    [whole] = WorkerSet().complete([ended(of("a", "t1")), of("b", "t2")], source)
    assert whole.files == (S,)
    [ready] = WorkerSet().complete([of("a", "t1", DesiredState.READY)], source)
    assert ready.files == (C, S)


def test_a_file_that_is_not_there_yet_comes_once_it_is() -> None:
    told, source = WorkerSet(), desk()
    del source.files["s"]
    [first] = told.complete([of("b", "t1")], source)
    assert first.files == ()
    assert told.increment([of("b", "t1")], source) == []
    source.files["s"] = b"secret"
    [second] = told.increment([of("b", "t1")], source)
    assert (second.files, second.assignments) == ((S,), ())


def test_frames_are_bounded_by_bytes_and_files_come_before_assignments() -> None:
    ids = "ABCDEFGHIJ"
    source = Desk(
        specs={ServiceId("a"): using(configs=ids)},
        files={id_: b"x" * (CONFIG_LIMIT_BYTES // 2) for id_ in ids},
    )
    frames = WorkerSet().complete([of("a", f"t{n}") for n in range(60)], source)
    kinds = "".join("f" * len(frame.files) + "a" * len(frame.assignments) + "|" for frame in frames)
    assert kinds == "fff|fff|fff|f" + "a" * 50 + "|" + "a" * 10 + "|"
    assert [frame.is_partial for frame in frames] == [True] * 4 + [False]
    assert {frame.sequence for frame in frames} == {1}
    largest = max(len(codec.encode(LeaderMessage(assignments=frame))) for frame in frames)
    assert largest < FRAME_BYTES + CONFIG_LIMIT_BYTES


def test_specs_count_as_well() -> None:
    long = replace(using(), labels=(("k", "x" * 200_000),))
    source = Desk(specs={ServiceId("a"): long})
    frames = WorkerSet().complete([of("a", f"t{n:02}") for n in range(20)], source)
    assert [len(frame.assignments) for frame in frames] == [6, 6, 6, 2]
    largest = max(len(codec.encode(LeaderMessage(assignments=frame))) for frame in frames)
    assert largest < FRAME_BYTES + 200_000 + MIB // 10


# ------------------------------------------------------------------------------------- logins


def test_logins_are_those_of_the_registries_that_living_tasks_images_come_from() -> None:
    source = Desk(
        specs={
            ServiceId("a"): using(image="r.io/app:1"),
            ServiceId("h"): using(image="nginx"),
            ServiceId("p"): using(image="r.io/app", engine="process"),
            ServiceId("x"): using(image="NO NAME"),
        },
        passwords={"r.io": "1", "docker.io": "2", "other.io": "3"},
    )
    told = WorkerSet()
    [first] = told.complete([of("p", "t0"), of("x", "t1")], source)
    assert (first.logins, first.has_logins) == ((), False)
    r, hub = source.login("r.io"), source.login("docker.io")
    [second] = told.increment([of("p", "t0"), of("a", "t2"), of("h", "t3")], source)
    assert (second.logins, second.has_logins) == ((hub, r), True)
    assert told.increment([of("p", "t0"), of("a", "t2"), of("h", "t3")], source) == []
    # A task may be waiting for its image to be pulled with the right word.
    source.passwords["r.io"] = "new"
    [third] = told.increment([of("p", "t0"), of("a", "t2"), of("h", "t3")], source)
    assert third == AssignmentSet(
        kind=AssignmentKind.INCREMENT,
        sequence=3,
        logins=(hub, GivenLogin(server="r.io", username="u", password="new")),  # type: ignore[arg-type]
        has_logins=True,
    )
    [last] = told.increment([of("p", "t0")], source)
    assert (last.logins, last.has_logins) == ((), True)


# ---------------------------------------------------------------------------------- all of it


@settings(deadline=None)
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from("uvwxyz"),
            st.tuples(st.sampled_from(DesiredState), st.booleans()),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_a_worker_has_exactly_what_its_living_tasks_use(
    states: list[dict[str, tuple[DesiredState, bool]]],
) -> None:
    services = dict(zip("uvwxyz", "aabbpp", strict=True))
    told, source, has = WorkerSet(), desk(), dict[str, GivenFile]()
    for state in states:
        rows = [
            ended(row) if is_over else row
            for id_, (desired, is_over) in state.items()
            for row in (of(services[id_], id_, desired),)
        ]
        fill = told.increment if told.sequence else told.complete
        living = [row for row in rows if row.is_wanted and not row.is_terminal]
        uses = {"a": {"c", "s"}, "b": {"s"}, "p": set[str]()}
        needed = {id_ for row in living for id_ in uses[row.service_id]}
        for frame in fill(rows, source):
            for id_ in frame.files_removed:
                del has[id_]
            for file in frame.files:
                assert file.id in needed
                assert file.id not in has
                has[file.id] = file
        assert has.keys() == needed
