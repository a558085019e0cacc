"""An agent among crashes, power cuts, lying disks and changing leaders, all drawn from a seed.

What must hold throughout: no process is started twice, no counter is used twice, no status is
reported that isn't on disk (a power cut would show it), and the core's own invariants. When the
world has healed, what runs is what is assigned.
"""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from skep.domain.base import ClusterId, NodeId, TaskId
from skep.domain.session import TaskReport
from skep.domain.states import TERMINAL, DesiredState, TaskState, desired_order
from skep.env import Disk, Env, Rejected, Retryable
from skep.worker.agent import Agent
from skep.worker.core.agent import AgentCore
from skep.worker.core.events import Moment
from skep.worker.core.reports import Reports
from skep.worker.journal import PATH, Journal
from tests.sim.world import SeedFailed, SimNode, World, simulate
from tests.unit.worker.fakes import HEALTH, FakeLeader, FakeMachine, agent, assignment

MANAGERS = tuple(f"127.0.0.{number}:7000" for number in (1, 2, 3))
STEPS = 60
CALM_S = 90.0


class Chaos:
    """The cluster round one worker, and the dice that disturb it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.dice: Random = world.dice("chaos")
        self.machine = FakeMachine()
        self.problems: list[str] = []
        self.term = 1
        self.names = 0
        self.leaders: list[FakeLeader] = []
        for number, address in enumerate(MANAGERS):
            node = world.node(f"m{number}")
            self.leaders.append(FakeLeader(node.boot(), address))
            node.env.spawn("serve", self.leaders[-1].serve())
        first = self.leaders[0]
        for leader in self.leaders[1:]:
            # One database.
            leader.assignments, leader.stored = first.assignments, first.stored
            leader.history = first.history
        self.worker: SimNode = world.node("w1", self._main)
        self.elect(0)

    @property
    def leader(self) -> FakeLeader:
        return next(leader for leader in self.leaders if leader.is_leading)

    async def _main(self, env: Env) -> None:
        of: Agent = agent(env, self.machine, MANAGERS, self.problems)
        of.start()
        await asyncio.Event().wait()

    def elect(self, number: int) -> None:
        self.term += 1
        for leader in self.leaders:
            leader.is_leading = leader is self.leaders[number]
            leader.leader_hint = self.dice.choice([MANAGERS[number], "", *MANAGERS])
        self.leader.term = self.term
        for node in range(len(MANAGERS)):
            self.world.network.reset(f"m{node}", "w1")

    async def disturb(self) -> None:
        """One thing goes wrong, or is asked for."""
        dice, machine, disk = self.dice, self.machine, self.worker.disk.temper
        match dice.randrange(12):
            case 0:
                self.worker.crash()
            case 1:
                self.worker.crash(is_power_lost=True)
                for task_id in sorted(machine.running):
                    machine.end(task_id, 137, "the machine went down")
            case 2:
                self.elect(dice.randrange(len(MANAGERS)))
            case 3:
                disk.sync_error, disk.is_full = dice.choice([(0.0, False), (0.3, False), (0, True)])
            case 4 if machine.running:
                machine.end(dice.choice(sorted(machine.running)), dice.choice([0, 1]))
            case 5:
                self.leader.is_answering = dice.random() < 0.5
                self.leader.is_acknowledging = dice.random() < 0.7
            case 6 | 7 | 8:
                await self._assign()
            case 9 | 10:
                await self._want_more()
            case 11:
                self.worker.pause()
                self.world.after(dice.uniform(0.1, 10.0), self.worker.resume)
        await asyncio.sleep(dice.expovariate(1.0))
        self.worker.boot()

    async def _assign(self) -> None:
        dice = self.dice
        for _ in range(dice.randint(1, 5)):
            self.names += 1
            name = f"t{self.names}"
            errors = [Retryable("busy"), Retryable("busy"), Rejected("never")]
            self.machine.prepare_errors[name] = dice.sample(errors, dice.choice([0, 0, 1, 2]))
            self.machine.start_errors[name] = dice.sample(errors, dice.choice([0, 0, 0, 1]))
            await self._tell(
                assignment(
                    name,
                    desired=dice.choice([DesiredState.READY, DesiredState.RUNNING]),
                    health=dice.choice([None, HEALTH]),
                    is_published=dice.random() < 0.5,
                )
            )

    async def _want_more(self) -> None:
        tasks = self.leader.assignments
        if not tasks:
            return
        name = self.dice.choice(sorted(tasks))
        if self.dice.random() < 0.2:
            del tasks[name]
            return
        desired = self.dice.choice(list(DesiredState))
        if desired_order(desired) > desired_order(tasks[name].task.desired_state):
            try:
                await self.leader.want(name, desired)
            except Exception as error:
                self.world.trace.note("chaos", f"not told: {error}")

    async def _tell(self, of: object) -> None:
        try:
            await self.leader.assign(of)  # type: ignore[arg-type]
        except Exception as error:
            self.world.trace.note("chaos", f"not told: {error}")

    async def heal(self) -> None:
        self.worker.disk.temper.sync_error, self.worker.disk.temper.is_full = 0.0, False
        for leader in self.leaders:
            leader.is_answering = leader.is_acknowledging = True
        self.worker.resume()
        self.elect(0)
        await asyncio.sleep(CALM_S)

    def check(self) -> None:
        for leader in self.leaders:
            self.problems += leader.problems
        for task_id, starts in self.machine.starts.items():
            if starts > 1:
                self.problems.append(f"{task_id} was started {starts} times")
        wanted = {
            task_id
            for task_id, of in self.leader.assignments.items()
            if of.task.desired_state is DesiredState.RUNNING
            and self.leader.state(task_id) is TaskState.RUNNING
        }
        self.problems += self._stuck(wanted)
        if self.machine.running != wanted:
            self.problems.append(f"running {self.machine.running}, wanted {wanted}")
        for task_id in set(self.machine.tasks) - set(self.leader.assignments):
            self.problems.append(f"{task_id} was left in the engine")
        for task_id, of in self.leader.assignments.items():
            if of.task.desired_state is DesiredState.REMOVE and task_id in self.machine.tasks:
                self.problems.append(f"{task_id} was not removed")

    def _stuck(self, running: set[TaskId]) -> list[str]:
        """The tasks that are not where their managers want them, and won't get there."""
        found = []
        for task_id, of in self.leader.assignments.items():
            state = self.leader.state(task_id)
            is_waiting = state is TaskState.READY and of.task.desired_state is DesiredState.READY
            is_over = state is not None and state in TERMINAL
            if task_id not in running and not is_waiting and not is_over:
                found.append(f"{task_id} is stuck in {state}")
        return found


async def scenario(world: World) -> None:
    chaos = Chaos(world)
    world.hesitation = world.dice("pace").choice([0.0, 0.1])
    chaos.worker.boot()
    for _ in range(STEPS):
        await chaos.disturb()
    await chaos.heal()
    chaos.check()
    for problem in chaos.problems:
        world.problem(problem)


@pytest.mark.sim
@pytest.mark.parametrize("seed", range(10))
def test_an_agent_among_faults(seed: int) -> None:
    simulate("worker-chaos", scenario, seed)


def is_noticed(seeds: range) -> bool:
    """Whether one of the seeds finds something."""
    for seed in seeds:
        try:
            simulate("worker-chaos", scenario, seed)
        except SeedFailed:
            return True
    return False


@pytest.mark.sim
def test_ablation_reporting_what_is_not_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Named safeguard: a status is on disk before a leader hears of it. Without it a power cut
    takes back a counter that was used, and it is used again."""
    take, save = Reports.take_unsaved, AgentCore._save

    def take_as_saved(self: Reports) -> tuple[TaskReport, ...]:
        reports = take(self)
        self.saved(reports)
        return reports

    def save_and_send(self: AgentCore, at: Moment) -> None:
        save(self, at)
        self._send()

    monkeypatch.setattr(Reports, "take_unsaved", take_as_saved)
    monkeypatch.setattr(AgentCore, "_save", save_and_send)
    assert is_noticed(range(30))


@pytest.mark.sim
def test_ablation_adding_to_a_file_of_an_earlier_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """Named safeguard: the first save of a life writes all anew. Without it, what a failed sync
    left out of the file is missed by the next life, in the middle of what it adds to."""
    careful = Journal.open

    def trusting(disk: Disk, cluster_id: ClusterId, node_id: NodeId) -> Journal:
        journal = careful(disk, cluster_id, node_id)
        if disk.read(PATH) is not None:
            journal._file = disk.open(PATH)
        return journal

    monkeypatch.setattr(Journal, "open", trusting)
    assert is_noticed(range(60))
