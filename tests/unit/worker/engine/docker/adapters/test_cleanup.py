"""Cleaning up after tasks on a real Docker engine."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiodocker
import pytest

from skep.domain.base import SECOND_NS
from skep.domain.container import PullPolicy
from skep.env import LoopClock, RealDisk, WallNs
from skep.worker.engine.docker.adapters import cleanup as cleanup_module
from skep.worker.engine.docker.adapters.cleanup import RECORD_FILE, Cleaner, OwnLabel
from skep.worker.engine.docker.adapters.images import Images
from skep.worker.engine.docker.core.cleanup import CleanupPolicy
from skep.worker.engine.docker.core.records import TASK_LABEL
from tests.support.dockerd import BUSYBOX, Dockerd
from tests.support.images import Image, make_image
from tests.support.registry import Registry, serving
from tests.unit.worker.engine.adapters.workbench import eventually, new_env

DEADLINE_S = 60.0
DAY_S = 24 * 3600.0
ALWAYS, MISSING = PullPolicy.ALWAYS, PullPolicy.MISSING
NODE_LABEL = "io.skep.test-node"


@dataclass
class ShiftedClock(LoopClock):
    """The clock of somebody who sleeps for days in between."""

    shift_s: float = 0.0

    def wall(self) -> WallNs:
        return WallNs(super().wall() + int(self.shift_s * SECOND_NS))


@dataclass
class Bench:
    engine: Dockerd
    registry: Registry
    images: Images
    cleaner: Cleaner
    clock: ShiftedClock
    tasks: set[str]
    known: list[set[str] | None]
    usage: list[tuple[int, int]]

    def ids(self) -> set[str]:
        return {image["Id"] for image in self.engine.get("/images/json")}

    def tags(self) -> set[str]:
        listed = self.engine.get("/images/json")
        return {tag for image in listed for tag in image["RepoTags"] or ()}

    def container(self, image: str, *command: str, **labels: str) -> str:
        body = {
            "Image": image,
            "Cmd": list(command),
            "Labels": labels,
            "HostConfig": {"NetworkMode": "none"},
        }
        return str(self.engine.call("POST", "/containers/create", body)["Id"])

    async def pull(self, name: str, image: Image) -> str:
        put = self.registry.put(name, "1", image)
        await self.images.ensure(put, "", MISSING, None)
        return put


@contextlib.asynccontextmanager
async def bench(engine: Dockerd, folder: Path, policy: CleanupPolicy) -> AsyncIterator[Bench]:
    docker = aiodocker.Docker(url=engine.url)
    disk = RealDisk(folder)
    clock = ShiftedClock()
    env = dataclasses.replace(new_env(), disk=disk, clock=clock)
    tasks: set[str] = set()
    known: list[set[str] | None] = [tasks]
    usage: list[tuple[int, int]] = []

    def used(_path: str) -> tuple[int, int]:
        return usage.pop(0) if usage else (0, 100)

    owner = OwnLabel(NODE_LABEL, "n1", lambda: known[0])
    cleaner = Cleaner(docker, env, owner, policy, used)
    try:
        async with asyncio.timeout(DEADLINE_S), serving(Registry()) as registry:
            images = Images(docker, env, cleaner)
            yield Bench(engine, registry, images, cleaner, clock, tasks, known, usage)
    finally:
        await cleaner.close()
        await docker.close()
        disk.close()


def on_bench(
    engine: Dockerd,
    folder: Path,
    body: Callable[[Bench], Coroutine[Any, Any, None]],
    policy: CleanupPolicy | None = None,
) -> None:
    async def whole() -> None:
        async with bench(engine, folder, policy or CleanupPolicy()) as made:
            await body(made)

    asyncio.run(whole())


@pytest.fixture(autouse=True)
def nothing_left(engine: Dockerd) -> Iterator[None]:
    yield
    engine.clear()
    for image in engine.get("/images/json"):
        if not any(name.startswith("skep-test/") for name in image["RepoTags"] or ()):
            engine.call("DELETE", f"/images/{image['Id']}?force=1")


def test_what_was_pulled_and_is_used_no_more_goes_and_nothing_else(
    engine: Dockerd, tmp_path: Path
) -> None:
    async def body(bench: Bench) -> None:
        kept, gone, theirs = (make_image({"v": bytes([n])}) for n in range(3))
        # Somebody has pulled one by hand, and Skep finds it there.
        put = bench.registry.put("theirs", "1", theirs)
        await asyncio.to_thread(bench.engine.call, "POST", f"/images/create?fromImage={put}")
        await bench.images.ensure(put, "", ALWAYS, None)
        await bench.images.ensure(put, theirs.digest, MISSING, None)
        name = await bench.pull("kept", kept)
        await bench.pull("gone", gone)
        await bench.images.ensure(BUSYBOX, "", MISSING, None)
        container = bench.container(name, "true")

        bench.clock.shift_s = DAY_S - 60
        await bench.cleaner.clean()
        assert {kept.id, gone.id, theirs.id} <= bench.ids()
        bench.clock.shift_s = DAY_S + 60
        await bench.cleaner.clean()
        assert gone.id not in bench.ids()
        assert {kept.id, theirs.id} <= bench.ids()
        # It was in use a moment ago.
        bench.engine.call("DELETE", f"/containers/{container}")
        await bench.cleaner.clean()
        assert kept.id in bench.ids()
        bench.clock.shift_s += DAY_S + 60
        await bench.cleaner.clean()
        assert kept.id not in bench.ids()
        assert theirs.id in bench.ids()
        assert BUSYBOX in bench.tags()

    on_bench(engine, tmp_path, body)


def test_an_image_that_came_by_its_digest_goes_too(engine: Dockerd, tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        old, new = make_image({"v": b"1"}), make_image({"v": b"2"})
        name = bench.registry.put("web", "1", old)
        await bench.images.ensure(name, old.digest, MISSING, None)
        # And one that lost its tag to a newer one.
        await bench.images.ensure(name, "", ALWAYS, None)
        bench.registry.put("web", "1", new)
        await bench.images.ensure(name, "", ALWAYS, None)
        assert {old.id, new.id} <= bench.ids()
        bench.clock.shift_s = DAY_S + 60
        await bench.cleaner.clean()
        assert not {old.id, new.id} & bench.ids()

    on_bench(engine, tmp_path, body)


def test_an_image_that_somebody_has_named_stays_under_that_name(
    engine: Dockerd, tmp_path: Path
) -> None:
    async def body(bench: Bench) -> None:
        image = make_image({"v": b"1"})
        name = await bench.pull("web", image)
        bench.engine.call("POST", f"/images/{name}/tag?repo=mine&tag=1")
        bench.clock.shift_s = DAY_S + 60
        await bench.cleaner.clean()
        assert image.id in bench.ids()
        assert "mine:1" in bench.tags()
        assert name not in bench.tags()

    on_bench(engine, tmp_path, body)


def test_what_was_pulled_is_known_to_the_agents_next_life(engine: Dockerd, tmp_path: Path) -> None:
    image = make_image({"v": b"1"})

    async def pull(bench: Bench) -> None:
        await bench.pull("web", image)

    async def clean(bench: Bench) -> None:
        assert image.id in bench.ids()
        bench.clock.shift_s = DAY_S + 60
        await bench.cleaner.clean()
        assert image.id not in bench.ids()

    on_bench(engine, tmp_path, pull)
    on_bench(engine, tmp_path, clean)


def test_without_its_record_nothing_is_known_to_be_ours(engine: Dockerd, tmp_path: Path) -> None:
    image = make_image({"v": b"1"})

    async def pull(bench: Bench) -> None:
        await bench.pull("web", image)

    async def clean(bench: Bench) -> None:
        bench.clock.shift_s = 99 * DAY_S
        await bench.cleaner.clean()
        assert image.id in bench.ids()

    on_bench(engine, tmp_path, pull)
    (tmp_path / RECORD_FILE).write_bytes(b"torn")
    on_bench(engine, tmp_path, clean)


def test_while_the_disk_is_full_the_oldest_go_until_it_is_not(
    engine: Dockerd, tmp_path: Path
) -> None:
    async def body(bench: Bench) -> None:
        images = [make_image({"v": bytes([n])}) for n in range(4)]
        for number, image in enumerate(images):
            bench.clock.shift_s = number * 3600.0
            await bench.pull(f"web{number}", image)
        # Ninety percent, and two images later eighty.
        bench.usage[:] = [(90, 100), (88, 100), (80, 100)]
        await bench.cleaner.clean()
        # The third is young enough to stay, were it its turn; the fourth is just being used.
        assert [image.id in bench.ids() for image in images] == [False, False, True, True]
        bench.usage[:] = [(90, 100)] * 9
        await bench.cleaner.clean()
        assert [image.id in bench.ids() for image in images] == [False, False, False, True]

    on_bench(engine, tmp_path, body)


def test_a_pull_that_finds_no_space_has_room_made_at_once(
    engine: Dockerd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleanup_module, "FIRST_ROUND_S", 3600.0)

    async def body(bench: Bench) -> None:
        old, older = make_image({"v": b"1"}), make_image({"v": b"2"})
        await bench.pull("older", older)
        bench.clock.shift_s = 3600.0
        await bench.pull("old", old)
        bench.clock.shift_s = 7200.0
        bench.cleaner.start()
        bench.cleaner.disk_is_full()
        await eventually(lambda: older.id not in bench.ids())
        assert old.id in bench.ids()

    on_bench(engine, tmp_path, body)


def test_an_image_that_a_task_takes_while_it_is_to_go_stays(
    engine: Dockerd, tmp_path: Path
) -> None:
    async def body(bench: Bench) -> None:
        image = make_image({"v": b"1"})
        name = await bench.pull("web", image)
        bench.clock.shift_s = DAY_S + 60
        # All at once, again and again: whoever has an image from `ensure` can use it.
        for _ in range(10):
            taking = asyncio.create_task(bench.images.ensure(name, "", MISSING, None))
            await asyncio.gather(bench.cleaner.clean(), taking)
            assert image.id in bench.ids()
            bench.clock.shift_s += DAY_S + 60

    on_bench(engine, tmp_path, body)


def test_containers_of_tasks_that_nobody_knows_go(
    engine: Dockerd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        bench.tasks.add("t2")
        of = {
            name: bench.container(BUSYBOX, "sleep", "60", **{NODE_LABEL: node, TASK_LABEL: task})
            for name, node, task in (
                ("gone", "n1", "t1"),
                ("known", "n1", "t2"),
                ("other", "n2", "t1"),
                ("running", "n1", "t3"),
            )
        }
        bench.engine.call("POST", f"/containers/{of['running']}/start")
        await bench.cleaner.clean()
        assert len(bench.engine.containers()) == 4
        bench.clock.shift_s = 3600.0
        # As before the engine's first listing.
        bench.known[0] = None
        await bench.cleaner.clean()
        assert len(bench.engine.containers()) == 4
        bench.known[0] = bench.tasks
        await bench.cleaner.clean()
        left = {each["Id"] for each in bench.engine.containers()}
        assert left == {of["known"], of["other"], of["running"]}

    on_bench(engine, tmp_path, body)
