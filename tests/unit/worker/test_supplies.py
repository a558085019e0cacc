"""Configs, secrets and logins on a worker: at hand in time, in memory alone."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from skep.domain.base import TaskId, replace
from skep.domain.session import Assignment, FileKind, GivenFile, GivenLogin
from skep.domain.states import DesiredState, TaskState
from skep.domain.storage import FileUse
from skep.env import Env
from skep.worker.supplies import Supplies
from tests.sim.world import SimNode, World, simulate
from tests.unit.worker.fakes import FakeLeader, FakeMachine, agent, assignment

M1 = "127.0.0.1:7000"
SEEDS = range(5)
SECRET = GivenFile(id="s", name="word", kind=FileKind.SECRET, data=b"hunter2-secret")
CONFIG = GivenFile(id="c", name="conf", kind=FileKind.CONFIG, data=b"hunter2-config")
LOGIN = GivenLogin(server="r.io", username="u", password="hunter2-login")


@dataclass
class Stage:
    """A worker, its leader, and the supplies of each of its agent's lives."""

    world: World
    leader: FakeLeader
    worker: SimNode
    machine: FakeMachine = field(default_factory=FakeMachine)
    lives: list[Supplies] = field(default_factory=list)
    found: list[tuple[str, GivenFile | None]] = field(default_factory=list)

    async def agent_lives(self, env: Env) -> None:
        self.lives.append(Supplies())
        self.machine.on_prepare = self._prepared
        agent(env, self.machine, (M1,), supplies=self.lives[-1]).start()
        await asyncio.Event().wait()

    def _prepared(self, of: Assignment) -> None:
        for use in of.spec.task.run.secrets:
            self.found.append((of.task.id, self.lives[-1].file(use.id)))

    async def until_running(self, task_id: str) -> None:
        await self.world.eventually(
            f"{task_id} runs", lambda: self.leader.is_in(task_id, TaskState.RUNNING), within_s=20.0
        )


def using(task_id: str) -> Assignment:
    of = assignment(task_id)
    run = replace(of.spec.task.run, secrets=(FileUse(name="word", id="s"),))
    return replace(of, spec=replace(of.spec, task=replace(of.spec.task, run=run)))


async def a_worker_with_files(world: World) -> None:
    manager = world.node("m1")
    leader = FakeLeader(manager.boot(), M1)
    manager.env.spawn("serve", leader.serve())
    leader.files = {"s": SECRET, "c": CONFIG}
    leader.logins = (LOGIN,)
    leader.assignments[TaskId("t1")] = using("t1")
    stage = Stage(world, leader, world.node("w1"))
    stage.worker.main = stage.agent_lives
    stage.worker.boot()
    await stage.until_running("t1")
    [supplies] = stage.lives
    assert (supplies.file("s"), supplies.file("c")) == (SECRET, CONFIG)
    assert supplies.login("r.io") == LOGIN
    await leader.supply(removed=["c"], logins=[])
    await world.eventually("the rest is gone", lambda: supplies.logins() == (), within_s=1.0)
    assert supplies.file_ids() == {"s"}

    # The agent dies, and managers are away: nothing is prepared without its files.
    leader.is_leading = False
    leader.assignments[TaskId("t2")] = using("t2")
    stage.worker.crash()
    stage.worker.boot()
    await world.eventually("another life", lambda: len(stage.lives) == 2, within_s=5.0)
    leader.is_leading = True
    await stage.until_running("t2")
    assert stage.lives[1].file_ids() == {"s"}
    assert stage.found == [("t1", SECRET), ("t2", SECRET)]

    await leader.want("t1", DesiredState.SHUTDOWN)
    disk = stage.worker.disk
    assert disk.names()
    for name in disk.names():
        content = disk.content(name)
        assert content is not None
        assert b"hunter2" not in bytes(content.visible), name


def test_supplies_are_in_memory_before_tasks_are_prepared_and_on_no_disk() -> None:
    for seed in SEEDS:
        simulate("supplies", a_worker_with_files, seed)
