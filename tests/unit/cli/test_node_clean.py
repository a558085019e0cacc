"""`skep node clean`: which nodes, when it refuses, and what it prints."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from skep.cli.errors import Exit
from skep.cli.local import cluster as local
from skep.cli.local import core, home, procs
from skep.cli.main import main
from skep.env import DiceIds

Done = subprocess.CompletedProcess[str]


class Machine:
    """A local cluster of which nothing runs but what is said."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SKEP_HOME", str(folder))
        wanted = core.Wanted(1, 2)
        self.cluster = core.plan_cluster("demo", wanted, 64, DiceIds(random.Random("x")))
        home.Home("demo").save(self.cluster)
        self.running: set[str] = set()
        self.left = {"w1": ["interface skep-ing"], "w2": list[str]()}
        self.refusal = ""
        monkeypatch.setattr(local, "states", self._states)
        monkeypatch.setattr(local, "clean_nodes", self._clean)

    def _states(self, _: home.Home, cluster: core.LocalCluster) -> list[local.State]:
        found = procs.Found(1, 1, "S", 1)
        return [
            local.State(process, found if process.name in self.running else None)
            for process in core.processes(cluster)
        ]

    def _clean(
        self, _: home.Home, __: core.LocalCluster, nodes: Iterable[core.LocalNode], *flags: str
    ) -> list[tuple[core.LocalNode, Done]]:
        results = []
        for node in nodes:
            if self.refusal and not flags:
                results.append((node, Done([], 2, "", f"a line\nnetproxy: {self.refusal}\n")))
                continue
            word = "there is" if flags == ("--dry-run",) else "removed"
            text = "".join(f"{word}: {thing}\n" for thing in self.left[node.name])
            if word == "removed":
                self.left[node.name] = []
            results.append((node, Done([], 0, text, "")))
        return results


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    try:
        code = main(["node", "clean", *words, "--name", "demo"])
    except SystemExit as error:
        code = int(error.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def test_it_says_what_there_is_and_removes_it_when_told_to(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, "w1") == (
        0,
        "w1: there is: interface skep-ing\nnothing was removed; --yes removes it\n",
        "",
    )
    assert machine.left["w1"]
    assert run(capsys, "--all", "--yes") == (
        0,
        "w1: removed: interface skep-ing\nw2: nothing is left\n",
        "",
    )
    assert run(capsys, "w1", "w1", "--yes") == (0, "w1: nothing is left\n", "")


def test_a_netproxy_that_runs_is_told_by_name(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.running = {"w1.netproxy", "w1.agent"}
    code, _, err = run(capsys, "w1", "--yes")
    assert code == Exit.REFUSED
    assert "w1.netproxy runs" in err
    assert "skep local stop w1.netproxy --cluster demo" in err
    # The other node has nothing to do with it.
    assert run(capsys, "w2", "--yes")[0] == 0


def test_tasks_that_run_are_told(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.refusal = "tasks of this node run: t1 (pid 7)"
    code, _, err = run(capsys, "w1", "--yes")
    assert code == Exit.REFUSED
    assert "w1: tasks of this node run: t1 (pid 7)" in err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "name the nodes"),
        (("w1", "--all"), "name the nodes"),
        (("m1",), "'m1' has no netproxy in local cluster 'demo'; there are w1, w2"),
    ],
)
def test_nodes_that_cannot_be_meant(
    machine: Machine, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], told: str
) -> None:
    code, _, err = run(capsys, *words)
    assert (code, told in err) == (Exit.USAGE, True), err
