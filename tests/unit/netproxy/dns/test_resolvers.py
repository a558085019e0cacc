"""The resolvers that tasks really have (glibc, musl, busybox), in a network namespace of a task's
kind: loopback only, and a resolv.conf that names 127.0.0.11."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from skep.netproxy.dns.core.protocol import Applied, Listen, SetScopes
from skep.netproxy.dns.core.resolv import resolv_conf
from skep.netproxy.dns.core.wire import Rcode
from tests.unit.netproxy.dns.support import (
    DEADLINE_S,
    Dns,
    ask,
    dns_process,
    eventually,
    needs,
    needs_root,
    record,
    scope,
    zone,
)

pytestmark = [needs_root, needs("unshare", "nsenter", "ip", "mount")]

TASK_DNS = "127.0.0.11"
MANY = tuple(f"10.0.7.{n}" for n in range(40))
PROGRAM = """
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
int main(int count, char **words) {
    struct addrinfo wanted = {.ai_socktype = SOCK_STREAM}, *found;
    int failed = getaddrinfo(words[1], 0, &wanted, &found);
    if (failed) { printf("%s\\n", gai_strerror(failed)); return 2; }
    for (; found; found = found->ai_next) {
        char shown[64];
        struct sockaddr_in *at = (struct sockaddr_in *)found->ai_addr;
        puts(inet_ntop(found->ai_family, &at->sin_addr, shown, sizeof shown));
    }
    return 0;
}
"""


class Task:
    """A process in namespaces of its own, which end with it."""

    def __init__(self, folder: Path, *, has_loopback: bool = True) -> None:
        self.resolv_conf = folder / "resolv.conf"
        self.resolv_conf.write_text("")
        loopback = "ip link set lo up &&" if has_loopback else ""
        script = f'mount --bind "$1" /etc/resolv.conf && {loopback} echo up && exec cat'
        self.process = subprocess.Popen(
            ["unshare", "--net", "--mount", "sh", "-c", script, "sh", str(self.resolv_conf)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        if self.process.stdout.readline() != b"up\n":
            self.stop()
            pytest.skip("namespaces can't be made here")

    @property
    def namespace(self) -> str:
        return f"/proc/{self.process.pid}/ns/net"

    def run(self, *command: str) -> tuple[int, str]:
        done = subprocess.run(
            ["nsenter", "--target", str(self.process.pid), "--net", "--mount", *command],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )
        return done.returncode, done.stdout

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextlib.contextmanager
def task(folder: Path, *, has_loopback: bool = True) -> Iterator[Task]:
    it = Task(folder, has_loopback=has_loopback)
    try:
        yield it
    finally:
        it.stop()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Dns, Task]]:
    with dns_process() as dns, task(tmp_path_factory.mktemp("task")) as asker:
        records = (
            record("web", "10.0.0.2"),
            record("tasks.web", "10.0.0.3", "10.0.0.4"),
            record("www", "10.0.0.2", reverse=False),
            record("empty"),
            record("many", *MANY),
        )
        dns.set_networks(zone("net", *records, subnets=("10.0.0.0/16",)))
        networks = scope("t", "net", search=("stack", "corp.example"))
        assert dns.listen(networks, TASK_DNS, 53, asker.namespace) == 53
        yield dns, asker
        dns.ask(SetScopes(unlisten=("t",)))


@pytest.fixture(params=["none", "ours", "with ndots:1"])
def asker(both: tuple[Dns, Task], request: pytest.FixtureRequest) -> Task:
    """A task with a resolv.conf of each kind."""
    search = () if request.param == "none" else ("stack", "corp.example")
    text = resolv_conf(TASK_DNS, search)
    if request.param == "with ndots:1":
        text = text.replace("ndots:0", "ndots:1")
    both[1].resolv_conf.write_text(text)
    return both[1]


FOUND = [
    ("web", ["10.0.0.2"]),
    ("WEB", ["10.0.0.2"]),
    ("www", ["10.0.0.2"]),
    ("web.net", ["10.0.0.2"]),
    ("web.stack", ["10.0.0.2"]),
    ("web.corp.example", ["10.0.0.2"]),
    ("tasks.web", ["10.0.0.3", "10.0.0.4"]),
]


@needs("getent")
@pytest.mark.parametrize(("name", "addresses"), FOUND)
def test_glibc(asker: Task, name: str, addresses: list[str]) -> None:
    status, said = asker.run("getent", "ahosts", name)
    assert status == 0
    assert sorted({line.split()[0] for line in said.splitlines()}) == addresses


@needs("getent")
@pytest.mark.parametrize("name", ["nobody", "empty", "example.org"])
def test_glibc_is_told_at_once_what_is_not(asker: Task, name: str) -> None:
    assert asker.run("getent", "ahosts", name) == (2, "")


@needs("getent")
def test_glibc_long_answers_and_names_of_addresses(asker: Task) -> None:
    _, said = asker.run("getent", "ahosts", "many")
    assert {line.split()[0] for line in said.splitlines()} == set(MANY)
    _, said = asker.run("getent", "hosts", "10.0.0.2")
    assert said.split() == ["10.0.0.2", "web.net"]
    assert asker.run("getent", "hosts", "10.0.0.200") == (2, "")


@needs("busybox")
@pytest.mark.parametrize(("name", "addresses"), FOUND)
def test_busybox(asker: Task, name: str, addresses: list[str]) -> None:
    status, said = asker.run("busybox", "nslookup", name)
    assert status == 0, said
    answer = said.partition("\n\n")[2]
    assert sorted({word for word in answer.split() if word.startswith("10.")}) == addresses


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    if shutil.which("musl-gcc") is None:
        pytest.skip("needs musl-gcc")
    folder = tmp_path_factory.mktemp("musl")
    (folder / "resolve.c").write_text(PROGRAM)
    command = ["musl-gcc", "-static", "-o", str(folder / "resolve"), str(folder / "resolve.c")]
    subprocess.run(command, check=True, timeout=60)
    return str(folder / "resolve")


@pytest.mark.parametrize(("name", "addresses"), FOUND)
def test_musl(asker: Task, program: str, name: str, addresses: list[str]) -> None:
    status, said = asker.run(program, name)
    assert (status, sorted(said.split())) == (0, addresses)


@pytest.mark.parametrize("name", ["nobody", "empty", "example.org"])
def test_musl_is_told_what_is_not(asker: Task, program: str, name: str) -> None:
    assert asker.run(program, name)[0] == 2


def test_musl_makes_do_with_a_short_answer(asker: Task, program: str) -> None:
    status, said = asker.run(program, "many")
    assert status == 0
    assert len(set(said.split()) & set(MANY)) >= 30


def test_an_open_socket_keeps_a_dead_namespace_until_control_says_so(tmp_path: Path) -> None:
    with dns_process() as dns, task(tmp_path) as far, task(tmp_path) as near:
        dns.set_networks(zone("net", record("web", "10.0.0.2")))
        dns.listen(scope("far", "net"), TASK_DNS, 53, far.namespace)
        dns.listen(scope("near", "net"), TASK_DNS, 53, near.namespace)
        link = ("link", "add", "here", "type", "veth", "peer", "name", "there", "netns")
        assert near.run("ip", *link, str(far.process.pid))[0] == 0
        path = far.namespace
        far.stop()
        # Nothing changes while control wants it so: it alone knows that a task is over.
        dns.listen(scope("near", "net", forwards=True), TASK_DNS, 53, near.namespace)
        dns.listen(scope("far", "net", forwards=True), TASK_DNS, 53, path)
        assert near.run("ip", "link", "show", "here")[0] == 0
        dns.ask(SetScopes(unlisten=("far",)))
        eventually(lambda: near.run("ip", "link", "show", "here")[0] != 0)
        assert [each.scope_id for each in dns.status().scopes] == ["near"]


def test_a_task_whose_loopback_is_down_is_an_error_until_it_is_up(tmp_path: Path) -> None:
    with dns_process() as dns, task(tmp_path, has_loopback=False) as it:
        it.resolv_conf.write_text(resolv_conf(TASK_DNS))
        dns.set_networks(zone("net", record("web", "10.0.0.2")))
        wanted = Listen(scope=scope("t", "net"), address=TASK_DNS, port=53, namespace=it.namespace)
        # Bound now, it would answer from 127.0.0.1 ever after.
        response = dns.ask(SetScopes(listen=(wanted,)))
        assert isinstance(response, Applied)
        assert [error.why for error in response.errors] == [
            f"{TASK_DNS}:53: [Errno 101] Network is unreachable"
        ]
        it.run("ip", "link", "set", "lo", "up")
        assert dns.listen(wanted.scope, TASK_DNS, 53, it.namespace) == 53
        assert it.run("getent", "hosts", "web")[0] == 0
        # The process itself has stayed where it was.
        assert Path(f"/proc/{dns.process.pid}/ns/net").stat() == Path("/proc/self/ns/net").stat()


def test_another_namespace_at_the_same_path_is_another_place(tmp_path: Path) -> None:
    with dns_process() as dns, task(tmp_path) as first, task(tmp_path) as second:
        dns.set_networks(zone("net", record("web", "10.0.0.2")))
        path = tmp_path / "namespace"
        path.symlink_to(first.namespace)
        dns.listen(scope("t", "net"), TASK_DNS, 53, str(path))
        path.unlink()
        path.symlink_to(second.namespace)
        dns.listen(scope("t", "net"), TASK_DNS, 53, str(path))
        second.resolv_conf.write_text(resolv_conf(TASK_DNS))
        assert second.run("getent", "hosts", "web")[0] == 0


def test_the_listening_address_of_the_relay_plane(tmp_path: Path) -> None:
    """Port 53 as root, on a loopback address in the process's own namespace."""
    host = "127.177.53.1"
    with dns_process() as dns, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, 53))
        except OSError as error:
            pytest.skip(f"{host}:53: {error}")
        probe.close()
        dns.set_networks(zone("net", record("web", "10.0.0.2")))
        dns.resolv_conf.write_text(f"nameserver {host}\n")
        assert dns.listen(scope("t", "net", forwards=True), host, 53) == 53
        # The node's resolv.conf may name us; that must not go round in a circle.
        assert dns.status().resolvers == ()
        assert ask(53, "example.org", host=host).rcode == Rcode.SERVFAIL
