"""Networks, as courses on Docker Swarm tell of them, with `skep` for `docker`: services that find
each other by name, one that is published, and a page made of what another service says.

There is no registry: a command stands beside each image. What is `docker container exec` there is
entering the namespaces of a task here.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.local_cluster import ROOT, eventually, get
from tests.support.netcluster import Net

pytestmark = pytest.mark.process

ID = r"[0-9a-z]{25}"
STARTED_S = 60.0
WEB = ("python3", str(ROOT / "examples" / "web.py"), "{{.Task.Address}}:80")
GALLERY_PORT, NUMBERS_PORT = 8010, 8020

SERVER = """
import http.server, os, random, socketserver, sys, urllib.request

def text():
    if len(sys.argv) == 1:
        return str(random.randint(0, 99))
    with urllib.request.urlopen(sys.argv[1], timeout=10) as answer:
        return "Random number: " + answer.read().decode()

class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = text().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True

Server((os.environ["SKEP_TASK_ADDRESS"], 80), Page).serve_forever()
"""


@pytest.fixture
def swarm(net: Net) -> Iterator[Net]:
    """The cluster, without the course's services and networks in the end."""
    if net.docker is not None:
        pytest.skip("its commands are the node's, which is not in any image")
    yield net
    names = ("iotd", "accesslog", "image-gallery", "numbers-api", "numbers-web")
    for name in names:
        net.cluster.run("service", "rm", name)
    net.sdk.wait_removed(names, timeout_s=STARTED_S)
    for network in ("iotd-net", "numbers"):
        net.cluster.run("network", "rm", network)


def test_services_on_a_network_of_their_own(swarm: Net) -> None:
    made = swarm.cluster.skep("network", "create", "--driver", "overlay", "iotd-net")
    assert re.fullmatch(ID, made.strip())
    for name, replicas in (("iotd", 3), ("accesslog", 2)):
        made = swarm.cluster.skep(
            *("service", "create", "--detach", "--replicas", str(replicas), "--network"),
            *("iotd-net", "--name", name, "--image", f"diamol/ch09-{name}", "--", *WEB),
        )
        assert re.fullmatch(ID, made.strip())
    eventually(
        lambda: listed(swarm, "iotd", "3/3") and listed(swarm, "accesslog", "2/2"), STARTED_S
    )

    (iotd,) = looked_up(swarm, "iotd", "iotd")
    (accesslog,) = looked_up(swarm, "iotd", "accesslog")
    assert iotd != accesslog
    tasks = looked_up(swarm, "iotd", "tasks.iotd")
    assert len(tasks) == 3
    assert not {iotd, accesslog} & set(tasks)
    swarm.scale("iotd", 4)
    assert looked_up(swarm, "accesslog", "iotd") == [iotd]
    assert len(looked_up(swarm, "accesslog", "tasks.iotd")) == 4
    assert looked_up(swarm, "iotd", "nobody") == []
    the_gallery_is_published(swarm)


def the_gallery_is_published(swarm: Net) -> None:
    made = swarm.cluster.skep(
        *("service", "create", "--detach", "--name", "image-gallery", "--network", "iotd-net"),
        *("--publish", f"{GALLERY_PORT}:80", "--replicas", "2", "--", *WEB),
    )
    assert re.fullmatch(ID, made.strip())
    ports = rf"\*:{GALLERY_PORT}->80/tcp"
    eventually(lambda: listed(swarm, "image-gallery", "2/2", ports), STARTED_S)
    swarm.settle()
    assert len(swarm.nodes_of("image-gallery")) == 2, "a node must be without a replica"
    for node in swarm.workers:
        at = swarm.addresses[node]
        eventually(lambda at=at: is_open(at, GALLERY_PORT), STARTED_S, f"{at} answers")  # type: ignore[misc]
        told = {get(at, GALLERY_PORT)[1] for _ in range(6)}
        assert len(told) == 2, told
        assert all("image-gallery." in each for each in told)


def test_a_page_asks_another_service_by_its_name(swarm: Net, tmp_path: Path) -> None:
    program = tmp_path / "numbers.py"
    program.write_text(SERVER)
    tmp_path.chmod(0o755)
    swarm.cluster.skep("network", "create", "--driver", "overlay", "numbers")
    swarm.cluster.skep(
        *("service", "create", "--detach", "--network", "numbers", "--name", "numbers-api"),
        *("--expose", "80", "--image", "diamol/ch08-numbers-api:v3"),
        *("--", sys.executable, "-S", str(program)),
    )
    swarm.cluster.skep(
        *("service", "create", "--detach", "--network", "numbers", "--name", "numbers-web"),
        *("--publish", f"{NUMBERS_PORT}:80", "--image", "diamol/ch08-numbers-web:v3"),
        *("--", sys.executable, "-S", str(program), "http://numbers-api/"),
    )
    for name in ("numbers-api", "numbers-web"):
        eventually(lambda name=name: listed(swarm, name, "1/1"), STARTED_S, name)  # type: ignore[misc]
    for node in swarm.workers:
        at = swarm.addresses[node]
        eventually(lambda at=at: is_open(at, NUMBERS_PORT), STARTED_S, f"{at} answers")  # type: ignore[misc]
        status, page = get(at, NUMBERS_PORT, timeout_s=15.0)
        assert status == 200
        assert re.fullmatch(r"Random number: \d\d?", page)


# ------------------------------------------------------------------------------- looking


def listed(swarm: Net, name: str, running: str, ports: str = "") -> bool:
    """Whether `service ls` shows so many of a service's tasks, and its ports."""
    rows = swarm.cluster.skep("service", "ls").splitlines()
    return any(re.search(rf" {name} +replicated +{running} .*{ports}", row) for row in rows)


def looked_up(swarm: Net, service: str, name: str) -> list[str]:
    """The addresses of a name, as a program in a task of the service sees them."""
    pid = next(pid for pid in swarm.pids(service).values() if pid)
    words = ("nsenter", "--target", str(pid), "--net", "--mount", "getent", "ahostsv4", name)
    done = subprocess.run(words, capture_output=True, text=True, timeout=30.0, check=False)
    return sorted({line.split()[0] for line in done.stdout.splitlines()})


def is_open(host: str, port: int) -> bool:
    try:
        return get(host, port, timeout_s=15.0)[0] == 200
    except OSError:
        return False
