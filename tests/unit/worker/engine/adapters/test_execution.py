"""Programs inside process tasks, as the engine runs them."""

from __future__ import annotations

from pathlib import Path

import pytest

from skep.domain.base import TaskId
from skep.domain.execution import ExecSpec
from tests.unit.worker.engine.adapters.workbench import Bench, eventually, on_bench

pytestmark = pytest.mark.process

T1 = TaskId("t1")
SLEEP = ("sleep", "1000")
# The end of its terminal alone does not end it.
STUBBORN = ("nohup", *SLEEP)


@pytest.mark.parametrize("is_tty", [False, True])
def test_it_ends_when_let_go_of_before_it_has_begun(tmp_path: Path, *, is_tty: bool) -> None:
    async def body(bench: Bench) -> None:
        await bench.run("t1", *SLEEP)
        before = len(bench.alive())
        env = (("BENCH", str(tmp_path)),)
        for _ in range(5):
            spec = ExecSpec(argv=STUBBORN, is_tty=is_tty, has_input=True, env=env)
            execution = await bench.engine.exec(T1, spec)
            await execution.close()
        await eventually(lambda: len(bench.alive()) == before)

    on_bench(tmp_path, body)
