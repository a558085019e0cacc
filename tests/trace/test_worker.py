"""Lives of an agent, as they read in its trace: what happens, and below it what is asked for.

Of a task, `#5` is the counter of its status: five moves, or other news, since it was assigned.
"""

from __future__ import annotations

import textwrap

from skep.domain.states import DesiredState
from skep.worker.core.events import Call
from skep.worker.engine.protocol import HeldState
from tests.unit.worker.fakes import HEALTH, assignment
from tests.unit.worker.play import Play, held, wanted


def trace(text: str) -> str:
    return textwrap.dedent(text).strip("\n")


def test_the_life_of_a_published_task_with_a_health_test() -> None:
    play = Play()
    web = assignment(is_published=True, health=HEALTH)
    play.begin()
    play.welcome("s1", 3)
    play.now = 0.01
    play.saved()
    play.whole(web)
    play.now = 0.02
    play.done(Call.PREPARE, "t1")
    play.started("t1")
    play.now = 0.035
    play.flush()
    play.saved()
    play.stored()
    play.now = 1.02
    play.due(Call.PROBE, "t1")
    play.probed("t1")
    play.now = 1.05
    play.flush()
    play.saved()
    play.stored()
    play.now = 60.0
    play.change(wanted(web, DesiredState.SHUTDOWN))
    play.now = 60.5
    play.drained("t1")
    play.now = 60.7
    play.due(Call.STOP, "t1")
    play.now = 60.8
    play.ended("t1", 143)
    play.done(Call.STOP, "t1")
    play.flush()
    play.saved()
    play.stored()
    play.now = 90.0
    play.change(wanted(web, DesiredState.REMOVE))
    play.done(Call.REMOVE, "t1")
    play.flush()
    assert play.text == trace(
        """
        0 the agent begins; its engine holds nothing
        0 the leader of term 3 opens session s1
            save term 3
        0.01 saved
            refuse terms below 3
        0.01 the leader assigns t1 (wanted running)
            t1: assigned -> accepted, assigned
            t1: accepted -> preparing, assigned
            prepare t1
            save at 0.035
        0.02 done: prepare t1
            t1: preparing -> ready, prepared
            t1: ready -> starting, wanted running
            start t1
        0.02 done: start t1, pid 101
            wait t1
            probe t1 at 1.02
        0.035 time to save
            save t1 (wanted running), t1 starting #5
        0.035 saved
            report to s1: t1 starting #5
        0.035 the leader has stored batch 1
        1.02 time to probe t1
            probe t1
        1.02 the test of t1 says: healthy
            t1: starting -> running, healthy
            probe t1 at 2.02
            save at 1.045
        1.05 time to save
            save t1 running #6
        1.05 saved
            report to s1: t1 running #6
        1.05 the leader has stored batch 2
        60 the leader changes t1 (wanted shutdown)
            stop t1 at 65
            save at 60.025
        60.5 the leader says that t1 is drained
            stop t1 at 60.7
        60.7 time to stop t1
            stop t1
        60.8 t1 ends with 143
        60.8 done: stop t1
            t1: running -> shutdown, stopped
        60.8 time to save
            save t1 (wanted shutdown), t1 shutdown #7
        60.8 saved
            report to s1: t1 shutdown #7
        60.8 the leader has stored batch 3
        90 the leader changes t1 (wanted remove)
            remove t1
            save at 90.025
        90 done: remove t1
            forget t1
        90 time to save
            save no t1
        """
    )


def test_a_restarted_agent_adopts_what_runs() -> None:
    before = Play()
    tasks = [assignment("runs"), assignment("ended")]
    before.quickly_run(*tasks)
    play = Play(before.disk)
    play.now = 100.0
    play.begin(
        held("runs", HeldState.RUNNING),
        held("ended", HeldState.ENDED, exit_code=7),
        held("stray", HeldState.RUNNING, pid=102),
    )
    play.welcome("s2", 1)
    play.now = 100.005
    play.saved()
    play.stored()
    play.whole(*tasks)
    play.ended("stray", 143)
    play.done(Call.STOP, "stray")
    play.done(Call.REMOVE, "stray")
    play.now = 101.0
    play.flush()
    play.saved()
    assert play.text == trace(
        """
        100 the agent begins; its engine holds runs running, ended ended, stray running
            ended: running -> failed, ended by itself
            save at 100.025
            wait runs
            save term 1, ended failed #6, runs running #5
        100 the leader of term 1 opens session s2
        100.005 saved
            report to s2: ended failed #6, runs running #5
        100.005 the leader has stored batch 1
        100.005 the leader assigns runs (wanted running), ended (wanted running)
            wait stray
            stray: starting -> running, started
            stop stray
        100.005 stray ends with 143
        100.005 done: stop stray
            stray: running -> shutdown, stopped
            remove stray
        100.005 done: remove stray
            forget stray
        101 time to save
            save no stray
        101 saved
        """
    )


def test_a_leader_changes_and_the_old_one_comes_back() -> None:
    play = Play()
    web = assignment()
    play.quickly_run(web)
    play.now = 10.0
    play.lose_session()
    play.now = 11.0
    play.ended("t1", 1, "it broke")
    play.now = 11.025
    play.flush()
    play.saved()
    play.now = 12.0
    play.welcome("s2", 2)
    play.whole(web)
    play.saved()
    play.stored()
    play.now = 13.0
    play.welcome("s3", 1)
    play.whole(assignment("t9"))
    assert play.text == trace(
        """
        10 the session is lost
        11 t1 ends with 1
            t1: running -> failed, ended by itself
            save at 11.025
        11.025 time to save
            save t1 failed #6
        11.025 saved
        12 the leader of term 2 opens session s2
            save term 2
        12 the leader assigns t1 (wanted running)
        12 saved
            refuse terms below 2
            report to s2: t1 failed #6
        12 the leader has stored batch 2
        13 the leader of term 1 opens session s3
            leave s3: its term 1 is over: 2 was obeyed
        13 the leader assigns t9 (wanted running)
        """
    )


def test_a_worker_that_was_lost_stops_what_was_replaced() -> None:
    play = Play()
    stays, replaced = assignment("stays"), assignment("replaced", is_published=True)
    play.quickly_run(stays, replaced)
    play.now = 10.0
    play.lose_session()
    play.now = 40.0
    play.welcome("s2", 1)
    play.whole(stays)
    play.now = 40.1
    play.ended("replaced", 143)
    play.done(Call.STOP, "replaced")
    play.done(Call.REMOVE, "replaced")
    play.flush()
    play.saved()
    assert play.text == trace(
        """
        10 the session is lost
        40 the leader of term 1 opens session s2
            report to s2: stays running #5, replaced running #5
        40 the leader assigns stays (wanted running)
            stop replaced
            save at 40.025
        40.1 replaced ends with 143
        40.1 done: stop replaced
            replaced: running -> shutdown, stopped
            remove replaced
        40.1 done: remove replaced
            forget replaced
        40.1 time to save
            save no replaced
        40.1 saved
        """
    )
