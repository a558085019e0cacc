"""Containers of a real Docker engine, and what becomes of them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from skep.domain.base import SECOND_NS, TaskId
from skep.domain.container import ContainerSpec, PullPolicy
from skep.domain.session import FileKind
from skep.domain.spec import HealthCheck, Resources
from skep.domain.storage import FileUse, Mount, MountKind
from skep.env import Rejected, Retryable
from skep.worker.engine.docker.adapters.files import hold_in_memory
from skep.worker.engine.protocol import HeldState
from tests.e2e.dockerbench import ADDRESS, NODE, Bench, assignment, eventually, on_bench
from tests.support.dockerd import BUSYBOX, GLIBC, Dockerd, dockerd, why_not

pytestmark = pytest.mark.process

T1 = TaskId("t1")
SLEEP = ("sleep", "1000")


@pytest.fixture(scope="session")
def docker() -> Iterator[Dockerd]:
    """One with live-restore."""
    if reason := why_not():
        pytest.skip(reason)
    with dockerd() as made:
        yield made


@pytest.fixture
def mortal_docker() -> Iterator[Dockerd]:
    """One without, whose containers end with it."""
    if reason := why_not():
        pytest.skip(reason)
    with dockerd(has_live_restore=False) as made:
        yield made


def test_a_task_runs_ends_and_is_removed(tmp_path: Path, docker: Dockerd) -> None:
    async def body(bench: Bench) -> None:
        await bench.engine.prepare(assignment("t1", "sh", "-c", "echo hi; exit 3"), NODE)
        assert docker.inspect("web.3.t1")["State"]["Status"] == "created"
        await bench.engine.start(T1)
        exit_ = await bench.ended("t1")
        assert (exit_.exit_code, exit_.reason) == (3, "exit code 3")
        assert bench.output("t1") == "hi\n"
        await bench.engine.remove(T1)
        assert bench.ours() == []
        assert not (bench.places.folder / "t1").exists()

    on_bench(tmp_path, docker, body)


def test_what_a_task_finds_inside(tmp_path: Path, docker: Dockerd) -> None:
    async def body(bench: Bench) -> None:
        line = "cat /etc/hosts /etc/resolv.conf; hostname; env; pwd; ip -o addr; getent hosts db"
        container = ContainerSpec(extra_hosts=('db:{{vip "db"}}',))
        await bench.run(
            "t1",
            *("/bin/sh", "-c", line.replace("ip -o addr; getent hosts db", "ip -o addr")),
            on_network=True,
            container=container,
            env=(("SLOT", "{{.Task.Slot}}"),),
            working_dir="/tmp",
        )
        await bench.ended("t1")
        said = bench.output("t1")
        assert f"{ADDRESS}\tt1\n" in said
        assert "10.9.9.9\tdb\n" in said
        assert "nameserver 127.0.0.11\noptions ndots:0\n" in said
        assert "SLOT=3\n" in said
        assert "\n/tmp\n" in said
        assert f"inet {ADDRESS}/32" in said
        assert bench.network.attached == set()

        await bench.run(
            "t2",
            *("/bin/sh", "-c", "getent hosts t2 db"),
            image=GLIBC,
            on_network=True,
            container=container,
        )
        assert (await bench.ended("t2")).exit_code == 0, bench.output("t2")
        assert {line.split()[0] for line in bench.output("t2").splitlines()} == {
            ADDRESS,
            "10.9.9.9",
        }

    on_bench(tmp_path, docker, body)


def test_a_container_never_runs_without_its_network(tmp_path: Path, docker: Dockerd) -> None:
    async def body(bench: Bench) -> None:
        await bench.engine.prepare(assignment("t1", *SLEEP, on_network=True), NODE)
        await bench.network.detach(T1)
        with pytest.raises(Rejected, match=r"the network of container \w+ is gone"):
            await bench.engine.start(T1)
        assert docker.inspect("web.3.t1")["State"]["Status"] == "created"
        await bench.engine.stop(T1)
        await bench.engine.remove(T1)
        assert bench.ours() == []

    on_bench(tmp_path, docker, body)


def test_stopping_by_signal_and_by_force(tmp_path: Path, docker: Dockerd) -> None:
    async def body(bench: Bench) -> None:
        polite = "trap 'echo bye; exit 0' USR1; echo up; while :; do sleep 0.01; done"
        await bench.run("t1", "sh", "-c", polite, stop_signal="SIGUSR1", grace_s=30.0)
        await bench.output_has("t1", "up")
        await bench.engine.stop(T1)
        assert (await bench.ended("t1")).exit_code == 0
        assert "bye" in bench.output("t1")

        stubborn = "trap '' TERM; echo up; while :; do sleep 0.01; done"
        await bench.run("t2", "sh", "-c", stubborn, grace_s=0.2, on_network=True)
        await bench.output_has("t2", "up")
        await bench.engine.stop(TaskId("t2"))
        assert (await bench.ended("t2")).exit_code == 137
        assert bench.network.attached == set()
        # Once more, and for what never was.
        await bench.engine.stop(TaskId("t2"))
        await bench.engine.stop(TaskId("t9"))

    on_bench(tmp_path, docker, body)


def test_an_images_own_stop_signal_counts(tmp_path: Path, docker: Dockerd) -> None:
    async def body(bench: Bench) -> None:
        image = "skep-test/quits:1"
        docker.build_image(image, f"FROM {BUSYBOX}", "STOPSIGNAL SIGQUIT")
        line = "trap 'exit 7' QUIT; echo up; while :; do sleep 0.01; done"
        await bench.run("t1", "sh", "-c", line, image=image, grace_s=30.0)
        await bench.output_has("t1", "up")
        await bench.engine.stop(T1)
        assert (await bench.ended("t1")).exit_code == 7

    on_bench(tmp_path, docker, body)


def test_removed_behind_our_back(tmp_path: Path, docker: Dockerd) -> None:
    async def body(bench: Bench) -> None:
        await bench.run("t1", *SLEEP, on_network=True)
        docker.call("DELETE", "/containers/web.3.t1?force=1")
        exit_ = await bench.ended("t1")
        assert exit_.exit_code == 137
        assert bench.network.attached == set()
        await bench.engine.remove(T1)

    on_bench(tmp_path, docker, body)


def test_stopped_by_somebody_else(tmp_path: Path, docker: Dockerd) -> None:
    async def body(bench: Bench) -> None:
        await bench.run(
            "t1", "sh", "-c", "trap 'exit 3' TERM; echo up; while :; do sleep 0.01; done"
        )
        await bench.output_has("t1", "up")
        docker.call("POST", "/containers/web.3.t1/stop")
        exit_ = await bench.ended("t1")
        assert exit_.exit_code == 3
        assert "it was sent SIGTERM by the Docker engine" in exit_.reason

    on_bench(tmp_path, docker, body)


def test_what_has_ended_is_never_run_again(tmp_path: Path, docker: Dockerd) -> None:
    async def body(bench: Bench) -> None:
        for task_id in ("t1", "t2"):
            await bench.run(task_id, *SLEEP)
            await bench.engine.stop(TaskId(task_id))
        docker.call("POST", "/containers/web.3.t1/start")
        await eventually(lambda: not docker.inspect("web.3.t1")["State"]["Running"])
        # Also where nobody looked when that happened.
        await bench.engine.close()
        docker.call("POST", "/containers/web.3.t2/start")
        held = await bench.restart()
        assert {each.state for each in held} == {HeldState.ENDED}
        await eventually(lambda: not docker.inspect("web.3.t2")["State"]["Running"])

    on_bench(tmp_path, docker, body)


def test_out_of_memory_is_a_reason(tmp_path: Path, docker: Dockerd) -> None:
    async def body(bench: Bench) -> None:
        limits = Resources(memory_bytes=16 << 20)
        await bench.run("t1", "tail", "/dev/zero", limits=limits)
        exit_ = await bench.ended("t1")
        assert (exit_.exit_code, exit_.reason) == (
            137,
            "out of memory: its limit is 16777216 bytes (OOM)",
        )

    on_bench(tmp_path, docker, body)


def test_an_agent_takes_over_what_another_has_left(tmp_path: Path, docker: Dockerd) -> None:
    async def body(bench: Bench) -> None:
        health = HealthCheck(test=("CMD", "true"))
        await bench.run("runs", *SLEEP, health=health, on_network=True)
        await bench.run("ends", "sh", "-c", "sleep 0.2; exit 4")
        await bench.engine.prepare(assignment("waits", *SLEEP), NODE)
        started = await bench.engine.start(TaskId("runs"))
        docker_id = docker.inspect("web.3.runs")["Id"]

        await bench.engine.close()
        await eventually(lambda: not docker.inspect("web.3.ends")["State"]["Running"])
        held = {each.task_id: each for each in await bench.restart()}
        assert {id_: each.state for id_, each in held.items()} == {
            "runs": HeldState.RUNNING,
            "ends": HeldState.ENDED,
            "waits": HeldState.PREPARED,
        }
        assert held[TaskId("runs")].started == started
        assert started.health == health
        ended = held[TaskId("ends")].exit
        assert ended is not None
        assert (ended.exit_code, ended.reason) == (4, "exit code 4")
        assert bench.network.live == {"runs", "waits"}
        await bench.engine.start(TaskId("waits"))
        await bench.engine.start(TaskId("runs"))
        assert docker.inspect("web.3.runs")["Id"] == docker_id

        # The label tells as much where the folder is lost.
        await bench.engine.close()
        for each in bench.places.folder.iterdir():
            (each / "container.json").unlink()
        again = {each.task_id: each.state for each in await bench.restart()}
        assert again == {
            "runs": HeldState.RUNNING,
            "ends": HeldState.ENDED,
            "waits": HeldState.RUNNING,
        }
        await bench.engine.stop(TaskId("runs"))
        assert (await bench.ended("runs")).exit_code == 137

    on_bench(tmp_path, docker, body)


def test_half_done_work_is_done_anew(tmp_path: Path, docker: Dockerd) -> None:
    async def body(bench: Bench) -> None:
        await bench.engine.prepare(assignment("t1", *SLEEP, on_network=True), NODE)
        first = docker.inspect("web.3.t1")["Id"]
        await bench.engine.prepare(assignment("t1", "true", on_network=True), NODE)
        assert docker.inspect("web.3.t1")["Id"] != first
        assert len(bench.ours()) == 1
        # Started, and its agent died before it could write that down.
        docker.call("POST", "/containers/web.3.t1/start")
        await bench.engine.start(T1)
        assert (await bench.ended("t1")).exit_code == 0

        # A container went before its agent knew of it.
        await bench.engine.prepare(assignment("t2", *SLEEP), NODE)
        await bench.engine.close()
        docker.call("DELETE", "/containers/web.3.t2?force=1")
        held = await bench.restart()
        assert [each.task_id for each in held] == ["t1"]

    on_bench(tmp_path, docker, body)


def test_containers_of_others_are_left_alone(tmp_path: Path, docker: Dockerd) -> None:
    async def body(bench: Bench) -> None:
        labels = {"io.skep.node": "other", "com.docker.swarm.task.id": "t1"}
        theirs = {"Image": BUSYBOX, "Labels": labels}
        docker.call("POST", "/containers/create?name=web.3.t1", theirs)
        with pytest.raises(Rejected, match=r"container web.3.t1 on this node that isn't Skep's"):
            await bench.engine.prepare(assignment("t1", *SLEEP), NODE)
        await bench.engine.stop(T1)
        await bench.engine.remove(T1)
        assert docker.inspect("web.3.t1")["Config"]["Labels"] == labels

    on_bench(tmp_path, docker, body)


def test_a_listing_leaves_what_is_being_prepared_to_whoever_does_so(
    tmp_path: Path, docker: Dockerd
) -> None:
    async def body(bench: Bench) -> None:
        await bench.engine.prepare(assignment("t1", *SLEEP), NODE)
        await bench.engine.close()
        (bench.places.folder / "t1" / "container.json").unlink()
        bench.renew()
        # Its container is there, and is known once the preparation has ended.
        bench.engine._tasks.preparing.add(T1)
        assert list(await bench.engine.held()) == []

    on_bench(tmp_path, docker, body)


def test_a_failed_preparation_leaves_nothing_attached(tmp_path: Path, docker: Dockerd) -> None:
    async def body(bench: Bench) -> None:
        never = ContainerSpec(pull_policy=PullPolicy.NEVER)
        with pytest.raises(
            Rejected, match='image "nosuch:1" is not on this node, and its pull policy is'
        ):
            await bench.engine.prepare(
                assignment("t1", image="nosuch:1", on_network=True, container=never), NODE
            )
        await eventually(lambda: not bench.network.attached)

    on_bench(tmp_path, docker, body)


@pytest.mark.parametrize(
    ("command", "user", "said"),
    [
        (("/nosuch",), "", 'no program "/nosuch" in its image (exit code 127)'),
        (("/etc/passwd",), "", '"/etc/passwd" in its image may not be executed (exit code 126)'),
        (SLEEP, "nobody-here", "there is no user nobody-here in its image"),
    ],
)
def test_what_cannot_start_says_why(
    tmp_path: Path, docker: Dockerd, command: tuple[str, ...], user: str, said: str
) -> None:
    async def body(bench: Bench) -> None:
        await bench.engine.prepare(assignment("t1", *command, user=user), NODE)
        with pytest.raises(Rejected) as caught:
            await bench.engine.start(T1)
        assert str(caught.value) == said
        await bench.engine.stop(T1)
        await bench.engine.remove(T1)
        assert bench.ours() == []

    on_bench(tmp_path, docker, body)


def test_configs_and_secrets_are_files(tmp_path: Path, docker: Dockerd) -> None:
    async def body(bench: Bench) -> None:
        line = "stat -c '%n %a %u %g' /conf /etc/key; cat /conf /run/secrets/pw /etc/key; "
        line += "(echo no >/conf) 2>&1; sleep 1000"
        wanted = assignment(
            *("t1", "sh", "-c", line),
            configs=(FileUse(name="conf", id="conf", mode=0o640, uid="7", gid="8"),),
            secrets=(
                FileUse(name="pw", id="pw"),
                FileUse(name="key", id="key", target="/etc/key", mode=0o400),
            ),
        )
        bench.give("conf", b"one\n")
        with pytest.raises(Retryable, match="secret pw has not arrived yet"):
            await bench.engine.prepare(wanted, NODE)
        bench.give("pw", b"two\n", FileKind.SECRET)
        bench.give("key", b"three\n", FileKind.SECRET)
        await bench.engine.prepare(wanted, NODE)
        await bench.engine.start(T1)
        said = await bench.output_has("t1", "Read-only file system")
        assert said.startswith("/conf 640 7 8\n/etc/key 400 0 0\none\ntwo\nthree\n")
        hold_in_memory(bench.places.secrets)
        secrets = sorted((bench.places.secrets / "t1").iterdir())
        assert [path.read_bytes() for path in secrets] == [b"two\n", b"three\n"]
        mounts = Path("/proc/mounts").read_text()
        assert f" {bench.places.secrets} tmpfs " in mounts
        await bench.engine.stop(T1)
        assert not (bench.places.secrets / "t1").exists()

    on_bench(tmp_path, docker, body)


def test_volumes_are_made_and_kept(tmp_path: Path, docker: Dockerd) -> None:
    async def body(bench: Bench) -> None:
        mounts = (
            Mount(kind=MountKind.VOLUME, source="data-{{.Task.Slot}}", target="/data"),
            Mount(kind=MountKind.VOLUME, target="/scratch"),
            Mount(kind=MountKind.TMPFS, target="/mem", size_bytes=1 << 20),
            Mount(
                kind=MountKind.BIND,
                source=str(tmp_path / "made"),
                target="/made",
                creates_host_path=True,
            ),
        )
        line = "echo x >>/data/f; cat /data/f; touch /made/file; mount | grep -c ' /mem '"
        for task_id in ("t1", "t2"):
            await bench.run(task_id, "sh", "-c", line, mounts=mounts)
            assert (await bench.ended(task_id)).exit_code == 0
            await bench.engine.remove(TaskId(task_id)) if task_id == "t1" else None
        assert bench.output("t2") == "x\nx\n1\n"
        await bench.engine.remove(TaskId("t2"))
        assert [each["Name"] for each in docker.get("/volumes")["Volumes"]] == ["data-3"]
        assert (tmp_path / "made" / "file").exists()

    on_bench(tmp_path, docker, body)


def test_health_is_asked_inside(tmp_path: Path, docker: Dockerd) -> None:
    async def body(bench: Bench) -> None:
        await bench.run("t1", *SLEEP, env=(("A", "1"),), user="nobody")

        async def probe(*test: str, timeout_s: float = 10.0) -> str | None:
            check = HealthCheck(test=test, timeout_ns=int(timeout_s * SECOND_NS))
            return await bench.engine.probe(T1, check)

        assert await probe("CMD-SHELL", 'test "$A" = 1 && test "$(id -un)" = nobody') is None
        assert await probe("CMD", "sh", "-c", "echo sick >&2; exit 1") == "sick"
        assert await probe("CMD", "false") == "exit code 1"
        assert "nosuch" in str(await probe("CMD", "nosuch"))
        line = "echo waiting; exec sleep 4321"
        said = await probe("CMD-SHELL", line, timeout_s=0.3)
        assert said == "no answer within 0.3 s: waiting"
        await eventually(lambda: "4321" not in str(docker.get("/containers/web.3.t1/top")))
        assert await probe("NONE") is None
        await bench.engine.stop(T1)
        assert await probe("CMD", "true") == "the task is not running"

    on_bench(tmp_path, docker, body)


def test_an_images_health_check_is_told(tmp_path: Path, docker: Dockerd) -> None:
    async def body(bench: Bench) -> None:
        image = "skep-test/healthy:1"
        check = 'HEALTHCHECK --interval=7s --retries=9 CMD ["true"]'
        docker.build_image(image, f"FROM {BUSYBOX}", check, 'CMD ["sleep", "1000"]')
        await bench.engine.prepare(
            assignment("t1", image=image, health=HealthCheck(interval_ns=2 * SECOND_NS)), NODE
        )
        started = await bench.engine.start(T1)
        assert started.health == HealthCheck(
            test=("CMD", "true"), interval_ns=2 * SECOND_NS, retries=9
        )
        assert "Health" not in docker.inspect("web.3.t1")["State"]
        assert await bench.engine.probe(T1, HealthCheck()) is None

    on_bench(tmp_path, docker, body)


def test_dockerd_comes_and_goes_and_tasks_go_on(tmp_path: Path, docker: Dockerd) -> None:
    async def body(bench: Bench) -> None:
        await bench.run("t1", *SLEEP)
        await bench.run("t2", "sh", "-c", "while test ! -e /stop; do sleep 0.01; done; exit 5")
        pid = docker.inspect("web.3.t2")["State"]["Pid"]
        docker.kill(signal.SIGKILL)
        with pytest.raises(Retryable, match="the Docker engine does not answer at unix:"):
            await bench.engine.probe(T1, HealthCheck(test=("CMD", "true")))
        with pytest.raises(Retryable, match="the Docker engine does not answer at unix:"):
            await bench.engine.prepare(assignment("t3", *SLEEP), NODE)
        Path(f"/proc/{pid}/root/stop").touch()
        await eventually(lambda: not Path(f"/proc/{pid}").exists())
        docker.start()
        exit_ = await bench.ended("t2")
        assert exit_.exit_code == 5
        await eventually(lambda: bench.engine.watch.gone_since is None)
        assert await bench.engine.probe(T1, HealthCheck(test=("CMD", "true"))) is None
        await bench.engine.stop(T1)
        await bench.ended("t1")

        # An agent that comes up while it is away.
        await bench.run("t4", *SLEEP)
        docker.kill(signal.SIGKILL)
        held = {each.task_id: each.state for each in await bench.restart()}
        assert held[TaskId("t4")] is HeldState.RUNNING
        docker.start()
        docker.call("DELETE", "/containers/web.3.t4?force=1")
        assert (await bench.ended("t4")).exit_code == 137

    on_bench(tmp_path, docker, body)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_containers_that_end_with_dockerd_say_so(
    tmp_path: Path, mortal_docker: Dockerd, number: signal.Signals
) -> None:
    async def body(bench: Bench) -> None:
        line = "trap 'exit 143' TERM; echo up; while :; do sleep 0.01; done"
        await bench.run("t1", "sh", "-c", line)
        await bench.output_has("t1", "up")
        mortal_docker.kill(number)
        mortal_docker.start()
        exit_ = await bench.ended("t1")
        assert exit_.exit_code in (137, 143)
        assert "without live-restore" in exit_.reason or "has live-restore" in exit_.reason

    on_bench(tmp_path, mortal_docker, body)


def test_the_relay_plane_has_no_networks_for_containers(tmp_path: Path, docker: Dockerd) -> None:
    async def body(bench: Bench) -> None:
        with pytest.raises(Rejected, match="only where the node's data plane is the kernel's"):
            await bench.engine.prepare(assignment("t1", *SLEEP, on_network=True), NODE)
        await eventually(lambda: not bench.network.attached)

    on_bench(tmp_path, docker, body, plane="relay")
