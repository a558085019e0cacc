"""Containers on a whole cluster, by the `skep` command alone, as a user gives it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.dockerd import BUSYBOX, Dockerd, dockerd
from tests.support.local_cluster import LocalCluster, eventually, get, local_cluster
from tests.support.netcluster import why_not

pytestmark = pytest.mark.process

STACK = """
name: shop
services:
  web:
    image: skep-test/busybox:1
    command:
      - sh
      - -c
      - |
        trap 'exit 0' TERM
        echo {{.Task.Slot}} >/tmp/index.html
        httpd -p 80 -h /tmp
        while :; do sleep 0.1; done
    ports: ["8085:80"]
    deploy: {replicas: 3}
    configs: [conf]
    secrets: [{source: password, target: /etc/password, mode: 0400}]
    volumes: ["data:/data"]
    healthcheck: {test: nslookup web, interval: 1s, start_period: 20s, start_interval: 200ms}
configs: {conf: {file: conf.txt}}
secrets: {password: {environment: PASSWORD}}
volumes: {data: {}}
"""
WITHIN_S = 60.0


class Shop:
    """The cluster, its Docker engine and the folder of the stack file."""

    def __init__(self, cluster: LocalCluster, docker: Dockerd, folder: Path) -> None:
        self.cluster = cluster
        self.docker = docker
        self.file = folder / "shop.yml"
        self.conf = folder / "conf.txt"

    def deploy(self, conf: str) -> None:
        """The stack with this config."""
        self.file.write_text(STACK)
        self.conf.write_text(conf)
        self.cluster.skep("stack", "deploy", "-c", str(self.file), within_s=WITHIN_S)

    def inside(self, task: str, line: str) -> str:
        """What a shell inside a task says."""
        return self.cluster.skep("exec", task, "--", "sh", "-c", line)

    def containers(self, service: str) -> list[dict[str, Any]]:
        """Those that run."""
        return [
            each
            for each in self.docker.containers()
            if each["Labels"].get("com.docker.swarm.service.name") == service
            and each["State"] == "running"
        ]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    if reason := why_not("containers"):
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("shop")
    with contextlib.ExitStack() as stack:
        docker = stack.enter_context(dockerd())
        flags = ("--plane", "kernel", "--engine", "docker", "--docker-host", docker.url)
        cluster = stack.enter_context(local_cluster(folder / "skep", *flags, stack=None))
        cluster.environ["PASSWORD"] = "top secret"
        made = Shop(cluster, docker, folder)
        made.deploy("one\n")
        yield made
    assert docker.folder.exists() is False


def test_a_stack_has_its_files_names_and_ports(shop: Shop) -> None:
    said = shop.inside("shop_web.1", "cat /conf /etc/password; stat -c %a /etc/password")
    assert said == "one\ntop secret400\n"
    assert "10.0.0." in shop.inside("shop_web.2", "nslookup web")
    addresses = [row["address"] for row in shop.cluster.workers()]
    seen = {get(str(address), 8085)[1] for address in addresses for _ in range(6)}
    assert seen == {"1\n", "2\n", "3\n"}
    names = {each["Names"][0].lstrip("/").rsplit(".", 1)[0] for each in shop.containers("shop_web")}
    assert names == {"shop_web.1", "shop_web.2", "shop_web.3"}


def test_a_secret_is_never_shown(shop: Shop) -> None:
    shown = shop.cluster.skep("secret", "inspect", "shop_password")
    assert "shop_password" in shown
    assert "top secret" not in shown


def test_another_content_of_a_config_is_rolled_out_and_volumes_stay(shop: Shop) -> None:
    for slot in (1, 2, 3):
        shop.inside(f"shop_web.{slot}", f"echo {slot} >/data/slot-{slot}")
    before = {row["name"]: row["node"] for row in shop.cluster.running("shop_web")}
    shop.deploy("two\n")
    assert shop.inside("shop_web.1", "cat /conf") == "two\n"
    assert {row["name"]: row["node"] for row in shop.cluster.running("shop_web")} == before
    assert "slot-2" in shop.inside("shop_web.2", "ls /data")
    assert [row["name"] for row in shop.cluster.rows("volume", "ls")] == ["shop_data"]


def test_a_container_removed_behind_the_managers_back_is_replaced(shop: Shop) -> None:
    run = ("service", "create", "--name", "clock", "--restart-delay", "0s", BUSYBOX)
    shop.cluster.skep(*run, "--", "sh", "-c", "while :; do date; sleep 1; done", within_s=WITHIN_S)
    (container,) = shop.containers("clock")
    shop.docker.call("DELETE", f"/containers/{container['Id']}?force=1")

    def is_replaced() -> bool:
        found = shop.containers("clock")
        return len(found) == 1 and found[0]["Id"] != container["Id"]

    eventually(is_replaced, WITHIN_S, "another container")
    eventually(lambda: len(shop.cluster.running("clock")) == 1, WITHIN_S, "and it is known")
    (old,) = [row for row in shop.cluster.tasks("clock") if row["desired_state"] == "shutdown"]
    assert "task: non-zero exit (137)" in str(old["error"])
    shop.cluster.skep("service", "rm", "clock", within_s=WITHIN_S)
    assert shop.containers("clock") == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("nosuch.invalid/image:1",), "nosuch.invalid"),
        ((BUSYBOX, "--", "no-such-program"), 'no program "no-such-program" in its image'),
        (("--mount", "type=bind,source=/no/such,target=/x", BUSYBOX), "/no/such"),
    ],
)
def test_what_can_t_run_says_why(shop: Shop, words: tuple[str, ...], told: str) -> None:
    shop.cluster.skep("service", "create", "--name", "bad", "-d", *words)
    eventually(
        lambda: told in shop.cluster.skep("service", "ps", "--no-trunc", "bad"), WITHIN_S, told
    )
    shop.cluster.skep("service", "rm", "bad", within_s=WITHIN_S)


def test_the_engine_goes_and_comes_back_and_nothing_is_lost_or_doubled(shop: Shop) -> None:
    before = {each["Id"] for each in shop.containers("shop_web")}
    shop.docker.kill()
    shop.docker.start()
    shop.cluster.skep("service", "scale", "shop_web=4", within_s=WITHIN_S)
    eventually(lambda: len(shop.containers("shop_web")) == 4, WITHIN_S, "four")
    assert before <= {each["Id"] for each in shop.containers("shop_web")}
    shop.cluster.skep("service", "scale", "shop_web=3", within_s=WITHIN_S)


def test_agents_go_and_come_back_and_adopt_their_containers(shop: Shop) -> None:
    eventually(lambda: len(shop.containers("shop_web")) == 3, WITHIN_S, "three")
    before = {each["Id"] for each in shop.containers("shop_web")}
    agents = [f"{row['name']}.agent" for row in shop.cluster.workers()]
    shop.cluster.skep("local", "kill", *agents)
    shop.cluster.skep("local", "start", *agents)
    eventually(
        lambda: all(row["status"] == "ready" for row in shop.cluster.workers()), WITHIN_S, "ready"
    )
    eventually(lambda: len(shop.cluster.running("shop_web")) == 3, WITHIN_S, "adopted")
    assert {each["Id"] for each in shop.containers("shop_web")} == before
