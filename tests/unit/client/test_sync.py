"""The blocking client: the same as the other one, from threads, under Ctrl-C, and at the end."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import subprocess
import sys
import threading
import typing
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from skep.api import codec
from skep.client import (
    Conflict,
    NotConverged,
    NotFound,
    adapter_thread,
    cluster,
    execution,
    objects,
    storage,
    sync,
    syncparts,
)
from skep.client.adapter_thread import ROOM, LoopThread
from skep.domain.base import ServiceId, replace
from skep.domain.control import ServiceView, WatchAction, WatchEvent
from skep.domain.objects import Service
from skep.domain.spec import RunSpec, ServiceSpec, TaskSpec
from tests.unit.client.fake import ADDRESSES, FakeControl, FakeSeams, FakeStream, seams

SPEC = ServiceSpec(name="web", task=TaskSpec(run=RunSpec(command=("serve",))), replicas=2)
LIMIT_S = 20.0

PAIRS = [
    (cluster.Cluster, sync.Cluster),
    (objects.Nodes, sync.Nodes),
    (objects.Services, sync.Services),
    (objects.Tasks, sync.Tasks),
    (objects.Stacks, syncparts.Stacks),
    (objects.Networks, syncparts.Networks),
    (storage.Configs, syncparts.Configs),
    (storage.Secrets, syncparts.Secrets),
    (storage.Registries, syncparts.Registries),
    (storage.Volumes, syncparts.Volumes),
    (execution.Execution, sync.Execution),
]


@contextmanager
def connected(world: FakeSeams) -> Iterator[sync.Cluster]:
    with sync.connect(ADDRESSES, seams=world) as it:
        yield it


def in_thread(work: Callable[[], object]) -> Callable[[], list[object]]:
    """Start `work` in a thread; call the result to join it: what it returned or raised."""
    ended: list[object] = []

    def run() -> None:
        try:
            ended.append(work())
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def join() -> list[object]:
        thread.join(LIMIT_S)
        assert not thread.is_alive()
        return ended

    return join


class Gauge:
    """A coroutine that waits for good, and what becomes of it."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.cancelled = threading.Event()

    async def hang(self) -> None:
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    async def goodbye() -> None:
        pass

    it = LoopThread(goodbye)
    yield it
    it.close()


# ------------------------------------------------------------------------- the same calls


# What is of use to coroutines alone.
ONLY_THERE = {"clock"}
# What is called back may be a coroutine function there.
CALLED_BACK: dict[object, object] = {cluster.Progress | None: sync.Progress | None}
ONLY_THERE_SAID = ", and awaited where it is a coroutine"


def public(kind: type) -> dict[str, Callable[..., object]]:
    names = [name for name in vars(kind) if name[0] != "_" and name not in ONLY_THERE]
    names = [name for name in names if callable(vars(kind)[name])]
    return {name: vars(kind)[name] for name in names}


def results(function: Callable[..., object]) -> tuple[object, ...]:
    """Kind of result and its type, the same for both clients where they match."""
    hint = typing.get_type_hints(function)["return"]
    hint = execution.Execution if hint is sync.Execution else hint
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin in (AsyncIterator, AsyncGenerator, Generator):
        return ("many", inside[0])
    return ("one", hint)


def _said(function: Callable[..., object]) -> str:
    """A docstring, however its lines are broken."""
    text = " ".join((inspect.getdoc(function) or "").split())
    return text.replace(ONLY_THERE_SAID, "")


def differences(there: type, here: type) -> list[str]:
    """What the blocking class lacks, has too much or has otherwise."""
    theirs, ours = public(there), public(here)
    found = [f"{here.__name__}: only one client has {n}" for n in theirs.keys() ^ ours.keys()]
    for name in theirs.keys() & ours.keys():
        one, other = theirs[name], ours[name]
        where = f"{here.__name__}.{name}"
        if inspect.iscoroutinefunction(other):
            found.append(f"{where} doesn't block")
        if inspect.signature(one).parameters != inspect.signature(other).parameters:
            found.append(f"{where}: parameters")
        elif _blocking(parameter_hints(one)) != parameter_hints(other):
            found.append(f"{where}: parameter types")
        if results(one) != results(other):
            found.append(f"{where}: result")
        if _said(one) != _said(other):
            found.append(f"{where}: docstring")
    return found


def _blocking(hints: dict[str, object]) -> dict[str, object]:
    return {name: CALLED_BACK.get(hint, hint) for name, hint in hints.items()}


def parameter_hints(function: Callable[..., object]) -> dict[str, object]:
    return {k: v for k, v in typing.get_type_hints(function).items() if k != "return"}


@pytest.mark.parametrize(("there", "here"), PAIRS)
def test_both_clients_have_the_same_calls(there: type, here: type) -> None:
    assert differences(there, here) == []
    assert inspect.getdoc(there) == inspect.getdoc(here)


def test_both_clients_have_the_same_parts() -> None:
    inner = cluster.connect(ADDRESSES, seams=seams())
    with connected(seams()) as ours:
        theirs = {name for name in vars(inner) if name[0] != "_"}
        assert theirs == {name for name in vars(ours) if name[0] != "_"}
        assert {type(getattr(inner, name)) for name in theirs} <= {pair[0] for pair in PAIRS}
    one, other = inspect.signature(cluster.connect), inspect.signature(sync.connect)
    assert one.parameters == other.parameters
    said = (inspect.getdoc(cluster.connect) or "").replace("`async with", "`with")
    assert said == inspect.getdoc(sync.connect)


def test_a_difference_between_the_clients_is_seen() -> None:
    class There:
        async def same(self, ref: str) -> int:
            """Say."""
            return 1

        async def new(self) -> None: ...

        async def other(self, ref: str, *, is_new: bool = False) -> int:
            """One."""
            return 1

        def many(self) -> AsyncIterator[int]:
            raise NotImplementedError

    class Here:
        def same(self, ref: str) -> int:
            """Say."""
            return 1

        def other(self, ref: str) -> str:
            """Other."""
            return ""

        def many(self) -> Generator[str, None, None]:
            raise NotImplementedError

    assert sorted(differences(There, Here)) == [
        "Here.many: result",
        "Here.other: docstring",
        "Here.other: parameters",
        "Here.other: result",
        "Here: only one client has new",
    ]


class Straight:
    """A LoopThread that hands back what it is given, and a client that notes how it is called."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[object, ...], dict[str, object]]] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **named: self.calls.append((name, args, named))

    def run(self, called: object) -> None: ...

    def iterate(self, called: object) -> None: ...

    def run_telling(self, start: Callable[[object], None], tell: object) -> None:
        start(tell)


@pytest.mark.parametrize(("there", "here"), PAIRS)
def test_each_call_passes_on_all_it_is_given(there: type, here: type) -> None:
    # These are made of other calls.
    for name in public(here).keys() - {"change", "scale", "close"}:
        both = Straight()
        it: Any = object.__new__(here)
        it._inner = it._loop = both
        given = {each: object() for each in inspect.signature(getattr(it, name)).parameters}
        function = public(there)[name]
        bound = inspect.signature(function).bind(it, **given)
        getattr(it, name)(*bound.args[1:], **bound.kwargs)
        ((called, args, named),) = both.calls
        assert called == name
        assert inspect.signature(function).bind(it, *args, **named) == bound


def test_calls_go_through() -> None:
    world = seams()
    with connected(world) as it:
        assert it.info().version == world.transport.control.version
        service = it.services.create(SPEC)
        assert it.services.get("web").service.id == service.id
        assert it.services.scale("web", 3).spec.replicas == 3
        assert [task.slot for task in it.tasks.list(service="web")] == [1, 2, 3]
        assert it.tasks.list(node="w1") == (it.tasks.list(service="web")[0],)
        node = it.nodes.update("w1", labels_set={"zone": "a"})
        assert it.nodes.get("w1").labels == node.labels == (("zone", "a"),)
        with pytest.raises(NotFound):
            it.services.get("nope")
        with pytest.raises(Conflict):
            it.services.update("web", SPEC, version=1)
        it.services.remove("web")
        it.wait_removed(["web"], timeout_s=5)
        assert it.services.list() == ()


# ------------------------------------------------------------------------------ callbacks


def test_callbacks_run_in_the_callers_thread_and_may_call() -> None:
    world = seams(FakeControl(is_quick=False))
    control = world.transport.control
    threads: set[int] = set()
    seen: list[tuple[int, int]] = []

    with connected(world) as it:

        def progress(views: tuple[ServiceView, ...]) -> None:
            threads.add(threading.get_ident())
            seen.extend((view.running, view.desired) for view in views)
            it.info()
            control.converge()

        def edit(spec: ServiceSpec) -> ServiceSpec:
            threads.add(threading.get_ident())
            return replace(spec, replicas=it.services.get("web").desired + 2)

        it.services.create(SPEC)
        assert it.services.change("web", edit).spec.replicas == 4
        it.wait_converged(["web"], timeout_s=1e9, progress=progress)
    assert seen[0] == (0, 4)
    assert seen[-1] == (4, 4)
    assert threads == {threading.get_ident()}


def test_what_a_callback_raises_ends_the_wait() -> None:
    with connected(seams(FakeControl(is_quick=False))) as it:
        it.services.create(SPEC)

        def progress(views: tuple[ServiceView, ...]) -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            it.wait_converged(["web"], timeout_s=1e9, progress=progress)
        with pytest.raises(NotConverged):
            it.wait_converged(["web"], timeout_s=5)


def test_a_change_starts_again_when_somebody_was_faster() -> None:
    with connected(seams()) as it:
        it.services.create(SPEC)
        rounds = []

        def edit(spec: ServiceSpec) -> ServiceSpec:
            rounds.append(spec.replicas)
            if len(rounds) < 3:
                it.services.update("web", replace(spec, replicas=10 + len(rounds)))
            return replace(spec, replicas=spec.replicas + 1)

        assert it.services.change("web", edit).spec.replicas == 13
        assert rounds == [2, 11, 12]
        before = it.services.get("web").service
        assert it.services.change("web", lambda spec: spec) == before

        def lose(spec: ServiceSpec) -> ServiceSpec:
            it.services.update("web", replace(spec, replicas=spec.replicas + 1))
            return replace(spec, replicas=1)

        with pytest.raises(Conflict):
            it.services.change("web", lose)


# ------------------------------------------------------------------------------ iterators


def change(version: int) -> WatchEvent:
    row = Service(id=ServiceId("a"), name="a", spec=SPEC, version=version)
    return WatchEvent(version=version, action=WatchAction.UPDATE, service=row)


def opened(it: sync.Cluster, control: FakeControl, number: int) -> FakeStream:
    """The n-th stream, once it has been asked for."""
    while len(control.streams) <= number or not control.streams[number].sent:
        it.info()
    return control.streams[number]


def test_leaving_the_loop_closes_the_stream() -> None:
    world = seams()
    control = world.transport.control
    with connected(world) as it:

        def read() -> list[int]:
            versions = []
            for event in it.watch(from_version=10, kinds=["service"]):
                versions.append(event.version)
                if len(versions) == 2:
                    break
            return versions

        join = in_thread(read)
        stream = opened(it, control, 0)
        for version in (11, 12, 13):
            stream.frames.put_nowait(codec.encode(change(version)))
            it.info()  # Wakes the loop, which the queue of a fake doesn't from this thread.
        assert join() == [[11, 12]]
        while not stream.is_closed:
            it.info()


def test_a_slow_reader_slows_its_source(loop: LoopThread) -> None:
    made: list[int] = []
    closed = threading.Event()

    async def source() -> AsyncIterator[int]:
        try:
            for number in range(10 * ROOM):
                made.append(number)
                yield number
        finally:
            closed.set()

    async def turn() -> None:
        for _ in range(20 * ROOM):
            await asyncio.sleep(0)

    reader = loop.iterate(source())
    assert made == []
    assert next(reader) == 0
    loop.run(turn())
    assert len(made) <= ROOM + 2
    assert list(reader) == list(range(1, 10 * ROOM))
    assert closed.is_set()

    closed.clear()
    reader = loop.iterate(source())
    assert [next(reader), next(reader)] == [0, 1]
    loop.run(turn())
    reader.close()
    assert closed.wait(LIMIT_S)
    assert list(reader) == []


def test_what_ends_a_source_is_raised_after_all_it_yielded(loop: LoopThread) -> None:
    async def source() -> AsyncIterator[int]:
        yield 1
        yield 2
        raise NotFound("gone")

    got = []
    with pytest.raises(NotFound, match="gone"):  # noqa: PT012
        for number in loop.iterate(source()):
            got.append(number)
    assert got == [1, 2]


# -------------------------------------------------------------------- threads and signals


def test_many_threads_share_one_connection() -> None:
    with connected(seams()) as it:
        it.services.create(SPEC)

        def grow() -> None:
            for _ in range(5):
                it.services.change("web", lambda spec: replace(spec, replicas=spec.replicas + 1))

        joins = [in_thread(grow) for _ in range(4)]
        ended = [join() for join in joins]
        grown = it.services.get("web").service.spec.replicas - SPEC.replicas
    lost = [each for each in ended if each != [None]]
    # Each thread that lost every round of a race says so; nothing hangs, nothing is lost.
    assert all(isinstance(each[0], Conflict) for each in lost)
    assert grown >= 5 * (4 - len(lost))


def test_a_running_loop_in_the_callers_thread_is_no_obstacle() -> None:
    with connected(seams()) as it:

        async def within() -> int:
            return it.info().version

        assert asyncio.run(within()) == it.info().version


@pytest.mark.parametrize("way", ["run", "iterate", "telling"])
def test_ctrl_c_interrupts_a_wait_and_cancels_it(loop: LoopThread, way: str) -> None:
    gauge = Gauge()

    async def source() -> AsyncIterator[int]:
        await gauge.hang()
        yield 1

    def interrupt() -> None:
        gauge.began.wait(LIMIT_S)
        os.kill(os.getpid(), signal.SIGINT)

    join = in_thread(interrupt)
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        if way == "run":
            loop.run(gauge.hang())
        elif way == "iterate":
            next(loop.iterate(source()))
        else:
            loop.run_telling(lambda tell: gauge.hang(), print)
    join()
    assert gauge.cancelled.wait(LIMIT_S)


# -------------------------------------------------------------------------------- the end


def test_closing_ends_what_other_threads_wait_for(loop: LoopThread) -> None:
    gauge, other = Gauge(), Gauge()

    async def source() -> AsyncIterator[int]:
        await other.hang()
        yield 1

    joins = [
        in_thread(lambda: loop.run(gauge.hang())),
        in_thread(lambda: next(loop.iterate(source()))),
    ]
    assert gauge.began.wait(LIMIT_S)
    assert other.began.wait(LIMIT_S)
    loop.close()
    assert gauge.cancelled.is_set()
    assert other.cancelled.is_set()
    for join in joins:
        (error,) = join()
        assert isinstance(error, RuntimeError)
        assert str(error) == "this connection is closed"
    loop.close()
    with pytest.raises(RuntimeError, match="this connection is closed"):
        loop.run(gauge.hang())


def test_an_iterator_may_be_dropped_where_the_lock_is_held(loop: LoopThread) -> None:
    # As the collector does, which runs at any line of any thread.
    gauge = Gauge()

    async def source() -> AsyncIterator[int]:
        yield 1
        await gauge.hang()

    reader = loop.iterate(source())
    assert next(reader) == 1
    assert gauge.began.wait(LIMIT_S)

    def drop() -> None:
        with loop._shared.lock:
            reader.close()

    in_thread(drop)()
    assert gauge.cancelled.wait(LIMIT_S)


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "skep-client"]


def test_close_says_goodbye_last_and_ends_the_thread() -> None:
    gauge = Gauge()
    said: list[bool] = []

    async def goodbye() -> None:
        said.append(gauge.cancelled.is_set())

    loop = LoopThread(goodbye)
    join = in_thread(lambda: loop.run(gauge.hang()))
    assert gauge.began.wait(LIMIT_S)
    loop.close()
    join()
    assert said == [True]
    assert threads() == []


def test_a_forgotten_connection_ends_its_thread() -> None:
    it = sync.connect(ADDRESSES, seams=seams())
    it.info()
    (thread,) = threads()
    del it
    thread.join(LIMIT_S)
    assert not thread.is_alive()


def test_no_address_is_told_before_anything_is_started() -> None:
    with pytest.raises(ValueError, match="at least one manager"):
        sync.connect([])
    assert threads() == []


def test_only_grpcs_empty_wakeups_are_kept_quiet() -> None:
    told: list[dict[str, object]] = []

    class Loop:
        def default_exception_handler(self, context: dict[str, object]) -> None:
            told.append(context)

    fault = {"message": "fault", "exception": ValueError()}
    for context in ({"exception": BlockingIOError()}, fault):
        adapter_thread._report(typing.cast(asyncio.AbstractEventLoop, Loop()), context)
    assert told == [fault]


START = """
import atexit, os, sys, threading
threads = []
# Called last, after the connection has been ended.
atexit.register(lambda: [thread.join(10) for thread in threads])
from skep.client import sync
from tests.unit.client.fake import ADDRESSES, seams
cluster = sync.connect(ADDRESSES, seams=seams())
"""


def run_script(text: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", START + text],
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.process
def test_a_program_ends_though_it_never_closed_and_threads_wait() -> None:
    text = """
def follow():
    try:
        for event in cluster.watch(from_version=1):
            pass
    finally:
        os.write(1, b"left\\n")
for _ in range(2):
    threads.append(threading.Thread(target=follow, daemon=True))
    threads[-1].start()
while len(cluster._inner._caller._channels[0].network.control.streams) < 2:
    cluster.info()
print("end", flush=True)
"""
    assert run_script(text) == (0, "end\nleft\nleft\n", "")


@pytest.mark.process
def test_a_fork_is_told_and_leaves_the_parents_connection_alone() -> None:
    text = """
cluster.info()
if (child := os.fork()) == 0:
    try:
        cluster.info()
    except RuntimeError as error:
        print(error, flush=True)
    try:
        next(cluster.watch())
    except RuntimeError as error:
        print(error, flush=True)
    cluster.close()
    with sync.connect(ADDRESSES, seams=seams()) as own:
        print(own.info().version, flush=True)
    sys.exit(0)
print(os.waitpid(child, 0)[1], cluster.info().version, flush=True)
"""
    told = (
        "this connection belongs to the process that this one was forked from; "
        "fork first and connect then, or start processes by spawn\n"
    )
    assert run_script(text) == (0, 2 * told + "10\n0 10\n", "")


@pytest.mark.process
def test_a_fork_of_a_connected_process_is_told_rather_than_left_waiting() -> None:
    text = """
sync.connect(["127.0.0.1:9"]).close()
if (child := os.fork()) == 0:
    try:
        sync.connect(["127.0.0.1:9"])
    except RuntimeError as error:
        print(error, flush=True)
    sys.exit(0)
os.waitpid(child, 0)
"""
    code, out, err = run_script(text)
    assert (code, err) == (0, "")
    assert out.startswith("the process that this one was forked from has connected")
