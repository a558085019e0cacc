"""`skep service logs` on a real cluster: what was written, and what is being written."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.local_cluster import (
    ROOT,
    LocalCluster,
    eventually,
    is_alive,
    kill_pid,
    local_cluster,
)

pytestmark = pytest.mark.process

# A line every 50 ms, numbered, so that one that is lost or doubled is seen.
STACK = """\
name: demo
services:
  count:
    command:
      - sh
      - -c
      - |
        i=0
        while :; do i=$$((i+1)); echo "line $$i"; echo "error $$i" >&2; sleep 0.05; done
    deploy:
      replicas: 2
      restart_policy: {condition: any, delay: 0s}
"""
LINE = re.compile(r"(demo_count\.[0-9]+\.[a-z0-9]{12})@(w[0-9]+) +\| line ([0-9]+)")


class Follower:
    """A running `skep service logs -f`, and what it has printed."""

    def __init__(self, cluster: LocalCluster) -> None:
        words = [sys.executable, "-m", "skep.cli.main", "service", "logs", "-f", "demo_count"]
        self.process = subprocess.Popen(
            words,
            env=cluster.environ,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self.errors: list[str] = []
        self._readers = [
            threading.Thread(target=into.extend, args=(stream,), daemon=True)
            for stream, into in (
                (self.process.stdout, self.lines),
                (self.process.stderr, self.errors),
            )
        ]
        for reader in self._readers:
            reader.start()

    def stop(self) -> None:
        """End it, as closing its terminal does."""
        self.process.terminate()
        for reader in self._readers:
            reader.join(10)
        self.process.communicate(timeout=10)

    def numbers(self) -> dict[str, list[int]]:
        """The numbers of each task's lines, in the order they were printed."""
        found: dict[str, list[int]] = {}
        for match in map(LINE.match, tuple(self.lines)):
            if match is not None:
                found.setdefault(match[1], []).append(int(match[3]))
        return found

    def problems(self) -> list[str]:
        return [line for line in tuple(self.errors) if line.startswith("skep:")]

    def grows(self, task: str, by: int = 20) -> bool:
        """Whether so many more lines of a task come."""
        before = len(self.numbers().get(task, ()))
        eventually(
            lambda: len(self.numbers().get(task, ())) >= before + by, 30.0, f"lines of {task}"
        )
        return True


@contextlib.contextmanager
def following(cluster: LocalCluster) -> Iterator[Follower]:
    follower = Follower(cluster)
    try:
        yield follower
    finally:
        follower.stop()


def titles(cluster: LocalCluster) -> list[str]:
    return [f"{task['name']}.{str(task['id'])[:12]}" for task in cluster.running("demo_count")]


def test_logs(tmp_path: Path) -> None:
    stack = tmp_path / "count.yaml"
    stack.write_text(STACK)
    home = tmp_path / "home"
    with local_cluster(home, "--managers", "3", "--workers", "2", stack=stack) as cluster:
        _reads_what_was_written(cluster)
        with following(cluster) as follower:
            first = titles(cluster)
            assert len(first) == 2
            assert all(follower.grows(title) for title in first)

            cluster.skep("service", "scale", "demo_count=3")
            [third] = set(titles(cluster)) - set(first)
            assert follower.grows(third)

            pid = int(cluster.running("demo_count")[0]["pid"])
            kill_pid(pid)
            eventually(lambda: not is_alive(pid), 10.0)
            eventually(lambda: len(titles(cluster)) == 3, 20.0)
            [fourth] = set(titles(cluster)) - {*first, third}
            assert follower.grows(fourth)

            # Tasks go on writing while nobody looks; all of it comes.
            cluster.kill("w1.agent")
            cluster.start("w1.agent")
            assert all(follower.grows(title) for title in titles(cluster))

            cluster.kill(cluster.leader())
            assert all(follower.grows(title, 60) for title in titles(cluster))

            for title, numbers in follower.numbers().items():
                assert numbers == list(range(1, len(numbers) + 1)), title
            assert follower.problems() == []
        _tells_of_a_node_that_is_down(cluster)


def _reads_what_was_written(cluster: LocalCluster) -> None:
    eventually(lambda: "line 30" in cluster.skep("service", "logs", "demo_count"), 20.0)
    done = cluster.run("service", "logs", "-t", "--tail", "10", "demo_count")
    assert done.returncode == 0
    # Of each of two tasks ten lines, about half of them errors.
    assert len(done.stdout.splitlines()) + len(done.stderr.splitlines()) == 20
    times = [line.partition(" ")[0] for line in done.stdout.splitlines()]
    assert times == sorted(times)
    assert "| error " in done.stderr
    assert "| error " not in done.stdout
    recent = cluster.skep("service", "logs", "--raw", "--since", "2s", "count").splitlines()
    # Two tasks, twenty lines a second each: what a busy machine writes may be less.
    assert 2 <= len(recent) <= 2 * 20 * 2 + 20


def _tells_of_a_node_that_is_down(cluster: LocalCluster) -> None:
    def is_seen(status: str) -> bool:
        return ("w2", status) in {(node["name"], node["status"]) for node in cluster.nodes()}

    # After the change of leaders it may be down for a moment, on a machine that is busy enough.
    eventually(lambda: is_seen("ready"), 30.0, "w2 is ready")
    cluster.kill("w2")
    eventually(lambda: is_seen("down"), 30.0, "w2 is down")
    begun = time.monotonic()
    done = cluster.run("service", "logs", "--tail", "1", "demo_count")
    assert time.monotonic() - begun < 20.0
    warnings = [line for line in done.stderr.splitlines() if line.startswith("skep: warning: ")]
    assert len(warnings) == 1
    assert warnings[0].startswith("skep: warning: node w2 is down: the output of ")
    assert "@w1" in done.stdout + done.stderr
    # The task there is replaced, so that its output is missing only where it is asked for.
    lost = next(task for task in cluster.tasks("demo_count") if task["node"] == "w2")
    assert cluster.run("service", "logs", str(lost["id"])).returncode == 1
