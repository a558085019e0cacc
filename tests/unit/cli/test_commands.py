"""The command as its users call it, against a control API in memory."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from skep import client
from skep.cli import parser
from skep.cli.local import cluster as local
from skep.cli.local import home
from skep.cli.main import main
from skep.client import Cluster
from skep.domain.base import replace
from skep.domain.objects import NodeState, TaskStatus
from skep.domain.states import DesiredState, TaskState
from tests.unit.client import fake

STACK = """\
services:
  web: {command: serve, ports: ["8080:80"], deploy: {replicas: 3}}
  clock: {command: tick}
"""


class Shell:
    """A terminal in a folder."""

    def __init__(
        self, world: fake.FakeSeams, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.world = world
        self.control = world.transport.control
        self.folder = folder
        self.capsys = capsys
        self.out = self.err = ""

    def skep(self, line: str, *more: str) -> int:
        """Run a command; its exit code."""
        try:
            code = main([*line.split(), *more])
        except SystemExit as error:
            code = int(error.code or 0)
        self.out, self.err = self.capsys.readouterr()
        assert "Traceback" not in self.err
        return code

    def rows(self, line: str) -> list[dict[str, object]]:
        """The JSON that a command prints."""
        assert self.skep(f"{line} --format json") == 0, self.err
        found: list[dict[str, object]] = json.loads(self.out)
        return found

    def file(self, text: str, name: str = "shop.yml") -> str:
        (self.folder / name).write_text(text)
        return str(self.folder / name)


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    world = fake.seams()
    real = client.connect

    def connect(addresses: Sequence[str], *, deadline_s: float) -> Cluster:
        return real(addresses, deadline_s=deadline_s, seams=world)

    monkeypatch.setattr(client, "connect", connect)
    monkeypatch.setenv("SKEP_ADDRESS", ",".join(fake.ADDRESSES))
    monkeypatch.setenv("SKEP_HOME", str(tmp_path / "home"))
    return Shell(world, tmp_path, capsys)


def columns(line: str) -> list[str]:
    return re.split(r" {3,}", line.strip())


# ------------------------------------------------------------------------------- nodes


def test_nodes_are_listed(shell: Shell) -> None:
    assert shell.skep("node ls") == 0
    lines = shell.out.splitlines()
    assert columns(lines[0])[1:4] == ["NAME", "ADDRESS", "ROLE"]
    assert columns(lines[1]) == [
        "m1-id",
        "m1",
        "127.32.0.1",
        "manager",
        "Ready",
        "Active",
        "Leader",
    ]
    assert columns(lines[4])[:2] == ["w1-id", "w1"]
    (row, *_) = shell.rows("node ls")
    assert row == {
        "id": "m1-id",
        "name": "m1",
        "address": "127.32.0.1",
        "role": "manager",
        "status": "ready",
        "availability": "active",
        "leader": True,
        "labels": {},
        "message": "",
    }
    assert shell.skep("node ls -q") == 0
    assert shell.out.split() == ["m1-id", "m2-id", "m3-id", "w1-id", "w2-id", "w3-id"]
    assert shell.skep("node ls --format yaml") == 0
    assert yaml.safe_load(shell.out)[5]["name"] == "w3"


def test_nodes_are_changed(shell: Shell) -> None:
    line = "node update w1 w2 --availability drain --label-add disk=ssd"
    assert shell.skep(line) == 0
    assert shell.out == "w1\nw2\n"
    assert shell.control.nodes["w2-id"].labels == (("disk", "ssd"),)
    assert shell.skep("node update w1") == 2
    assert shell.skep("node update w1 --label-add disk") == 2
    assert "write KEY=VALUE" in shell.err
    assert shell.skep("node inspect w1") == 0
    assert json.loads(shell.out)[0]["availability"] == "drain"


def test_a_node_is_forgotten_only_when_it_is_down(shell: Shell) -> None:
    assert shell.skep("node rm w1") == 5
    assert shell.err == "skep: error: node 'w1' is not down; stop it\n"
    node = shell.control.nodes["w1-id"]
    shell.control.nodes["w1-id"] = replace(node, state=NodeState.DOWN)
    assert shell.skep("node rm w1") == 0
    assert shell.out == "w1\n"


# ---------------------------------------------------------------------------- services


def test_a_service_from_birth_to_death(shell: Shell) -> None:
    assert shell.skep("service create --name web --replicas 2 -p 8080:80 -- serve -v") == 0
    assert re.fullmatch("[0-9a-z]{25}\n", shell.out)
    assert shell.err.endswith("converged: web 2/2\n")
    (row,) = shell.rows("service ls")
    assert (row["name"], row["mode"], row["running"], row["desired"]) == ("web", "replicated", 2, 2)
    assert row["ports"] == [{"published": 8080, "target": 80, "protocol": "tcp"}]
    assert shell.skep("service ls") == 0
    assert columns(shell.out.splitlines()[1])[1:] == [
        "web", "replicated", "2/2", "*:8080->80/tcp", "Converged",
    ]  # fmt: skip
    assert shell.skep("service update web --image v2") == 0
    assert shell.out == "web\n"
    assert shell.skep("service inspect web") == 0
    (view,) = json.loads(shell.out)
    assert view["service"]["spec"]["task"]["run"]["image"] == "v2"
    assert view["service"]["spec"]["task"]["restart"]["delay_ns"] == 5_000_000_000
    assert shell.skep("service rm web") == 0
    assert shell.out == "web\n"
    assert shell.rows("service ls") == []


def test_several_services_are_scaled_at_once(shell: Shell) -> None:
    shell.skep("service create -q --name a -- x")
    shell.skep("service create -q --name b -- x")
    assert shell.skep("service scale a=3 b=0") == 0
    assert shell.out == "a scaled to 3\nb scaled to 0\n"
    assert shell.err.endswith("converged: a 3/3, b 0/0\n")
    assert shell.skep("service scale a=1 nope=1") == 1
    assert [row["running"] for row in shell.rows("service ls")] == [3, 0]
    shell.skep("service scale a=1 -d")
    assert shell.skep("service scale a=5 b=2 a=4") == 2
    assert "'a=5': this service is named twice" in shell.err
    assert [row["running"] for row in shell.rows("service ls")] == [1, 0]
    for wrong in ("a", "a=", "a=x", "=1", "a=-1"):
        assert shell.skep(f"service scale {wrong}") == 2
        assert "write SERVICE=REPLICAS" in shell.err


def test_history_is_shown_newest_first_with_how_it_ended(shell: Shell) -> None:
    shell.skep("service create --name web --replicas 2 -- serve")
    control = shell.control
    row = next(iter(control.services.values()))
    first = control.add_task(row, 1, TaskState.FAILED)
    ended = TaskStatus(
        state=TaskState.FAILED, since_ns=1, error="task: non-zero exit (137)\x1b[2J", exit_code=137
    )
    control.tasks[first.id] = replace(
        first, status=ended, version=1, desired_state=DesiredState.SHUTDOWN
    )
    assert shell.skep("service ps web") == 0
    _, one, old, two = shell.out.splitlines()
    assert columns(one)[1:4] == ["web.1", "w1", "Running"]
    assert " \\_ web.1 " in old
    assert "Failed (exit 137)" in old
    assert "task: non-zero exit (137) [2J" in old
    assert "\x1b" not in shell.out
    assert columns(two)[1] == "web.2"
    assert "4002" in two
    rows = shell.rows("service ps web")
    assert [(row["slot"], row["state"], row["exit_code"]) for row in rows] == [
        (1, "running", None), (1, "failed", 137), (2, "running", None),
    ]  # fmt: skip
    assert rows[0]["pid"] == 4001
    assert rows[0]["node"] == "w1"
    assert {"id", "service", "desired_state", "error", "address"} <= rows[0].keys()
    assert [row["name"] for row in shell.rows("node ps w2")] == ["web.2"]
    assert len(shell.rows("node ps -a w1")) == 2


def test_waiting_has_an_end_and_detaching_has_none(shell: Shell) -> None:
    shell.control.is_quick = False
    shell.control.problems["web"] = ("no suitable node",)
    assert shell.skep("service create --name web --timeout 3s -- serve") == 3
    assert shell.err.splitlines() == [
        "web 0/1 (no suitable node)",
        "skep: error: not converged after 3 s: web 0/1 (no suitable node)",
    ]
    assert shell.skep("service update web --replicas 2 -d") == 0
    assert shell.skep("service rm web --timeout 2") == 3
    assert "not removed after 2 s: web" in shell.err


def test_what_was_given_up_is_not_waited_for(shell: Shell) -> None:
    shell.control.is_quick = False
    shell.control.problems["crash"] = ("crash.1: non-zero exit (1)",)
    shell.control.given_up["crash"] = 1
    began = shell.world.clock.time
    assert shell.skep("service create --name crash -- false") == 1
    assert shell.err.splitlines()[-1] == (
        "skep: error: crash: gave up after its last restart: crash.1: non-zero exit (1)"
    )
    assert shell.world.clock.time - began < 3
    assert shell.skep("service ls") == 0
    assert shell.out.splitlines()[1].endswith("Failed: crash.1: non-zero exit (1)")
    assert shell.rows("service ls")[0]["failed"] is True


def test_an_update_that_changes_nothing_says_so(shell: Shell) -> None:
    shell.skep("service create --name web -- serve")
    assert shell.skep("service update web --replicas 1") == 0
    assert "web is so already; nothing was changed" in shell.err


# ------------------------------------------------------------------------------ stacks


def test_a_stack_from_birth_to_death(shell: Shell) -> None:
    path = shell.file(STACK)
    assert shell.skep(f"stack deploy -c {path}") == 0
    assert shell.err.splitlines()[:2] == ["created shop_web", "created shop_clock"]
    assert shell.err.endswith("converged: shop_web 3/3, shop_clock 1/1\n")
    assert shell.rows("stack ls") == [
        {"id": shell.rows("stack ls")[0]["id"], "name": "shop", "services": 2, "revision": 1}
    ]
    assert len(shell.rows("stack ps shop")) == 4
    assert [row["name"] for row in shell.rows("stack services shop")] == ["shop_clock", "shop_web"]
    path = shell.file("services: {clock: {command: tick}}")
    assert shell.skep(f"stack deploy -c {path} shop") == 0
    assert "kept shop_web, which the stack no longer names; --prune removes it" in shell.err
    assert shell.skep(f"stack deploy --prune -c {path} shop") == 0
    assert "removed shop_web" in shell.err
    assert [row["name"] for row in shell.rows("service ls")] == ["shop_clock"]
    assert shell.skep("stack rm shop") == 0
    assert shell.rows("service ls") == []


def test_a_wrong_stack_file_changes_nothing(shell: Shell) -> None:
    path = shell.file("services:\n  a: {command: x, cap_add: [ALL]}\n")
    assert shell.skep(f"stack deploy -c {path} s") == 2
    assert shell.err == (
        f"skep: error: engine 'process' can't do 'cap_add' ({path}:2:19): it needs a container "
        "engine; remove the key\n"
    )
    assert shell.world.transport.calls == []
    assert shell.skep("stack deploy -c /nowhere/x.yml s") == 2
    assert shell.err == "skep: error: /nowhere/x.yml: No such file or directory\n"


def test_a_port_of_another_service_is_refused_by_the_names_in_the_file(shell: Shell) -> None:
    assert shell.skep("service create --name api -p 8080:80 -- serve") == 0
    path = shell.file(STACK)
    assert shell.skep(f"stack deploy -c {path}") == 5
    assert shell.err == (
        f"skep: error: {path}: service 'shop_web': port 8080/tcp is already published by service "
        "'api'\n"
    )
    assert shell.skep("service create --name api2 -p 8080:80 -- serve") == 5
    assert "is already published by service 'api'" in shell.err


def test_a_variable_that_is_not_set_is_told(shell: Shell) -> None:
    path = shell.file("services: {a: {command: 'x ${SKEP_NOT_SET}'}}")
    assert shell.skep(f"stack deploy -d -c {path} s") == 0
    assert "warning" in shell.err
    assert "variable 'SKEP_NOT_SET' is not set" in shell.err


# ------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("service ps nope", 1, "no service 'nope'; see `skep service ls`"),
        ("service", 2, "the following arguments are required: COMMAND; see 'skep service --help'"),
        ("service frob", 2, "invalid choice: 'frob'"),
        ("service ls --timeout 3", 2, "unrecognized arguments"),
        ("service rm web --timeout soon", 2, "'soon' is not a duration"),
        ("service create --name web", 2, "add it after '--'"),
        ("node ls -- x", 2, "this takes no command: -- x"),
        (
            "service create --nmae x -- y",
            2,
            "unrecognized arguments: --nmae; did you mean --name; see 'skep service create --help'",
        ),
        ("service create --name x --replicas 99999999999999999999 -- y", 2, "is too large"),
        ("service scale x=99999999999999999999", 2, "replicas are too many"),
        ("service rm x --timeout 0s", 2, "--timeout 0 leaves no time to wait; use --detach"),
        ("up --managers x", 2, "'x' is not a whole number"),
        ("local ls", 4, "there is no cluster 'default' in"),
        ("node ls --managers-address nowhere", 2, "'nowhere' is not an address"),
        ("up /nowhere.yml", 2, "/nowhere.yml: No such file"),
    ],
)
def test_every_error_is_one_line(shell: Shell, line: str, code: int, says: str) -> None:
    assert shell.skep(line) == code
    assert re.fullmatch(r"skep: error: [^\n]+\n", shell.err)
    assert says in shell.err


def test_the_same_name_twice_is_refused(shell: Shell) -> None:
    shell.skep("service create --name web -- serve")
    assert shell.skep("service create --name web -- serve") == 5
    assert "already" in shell.err


def test_no_manager_is_unreachable(shell: Shell) -> None:
    shell.world.transport.down = set(fake.ADDRESSES)
    assert shell.skep("node ls") == 4
    assert "see whether its managers run: skep local ls" in shell.err


def test_without_a_quorum_what_one_manager_has_can_be_seen(shell: Shell) -> None:
    shell.skep("service create --name web -- serve")
    shell.skep(f"stack deploy -d -c {shell.file(STACK)}")
    no_leader = "no manager leads at the moment; try again"
    shell.world.transport.down = set(fake.ADDRESSES[:2])
    shell.world.transport.leaderless = {fake.M3: no_leader}
    for line in ("node ls", "service ls", "service ps web", "stack ls"):
        assert shell.skep(line) == 4
        assert f"{fake.M3} answers, but no manager leads at the moment; 2 of 3" in shell.err
        assert shell.err.endswith("; --stale shows what it has\n")
        assert shell.skep(f"{line} --stale") == 0
        assert len(shell.out.splitlines()) > 1
        assert shell.err == "skep: note: this is what one manager has; it may be outdated\n"
    assert shell.skep("service rm web --stale") == 2


def test_without_a_cluster_the_next_step_is_told(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SKEP_ADDRESS")
    assert shell.skep("node ls") == 4
    assert "start one with 'skep up'" in shell.err
    assert shell.skep("down") == 0
    assert "nothing to stop" in shell.out


def test_a_local_cluster_without_managers_is_told_at_once(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SKEP_ADDRESS")
    with local.opened(home.Home("default"), 2, 0):
        pass
    assert shell.skep("node ls") == 4
    assert shell.err.endswith("is running; start them: skep local start m1 m2\n")
    assert shell.skep("local ls") == 0
    assert [line.split()[1] for line in shell.out.splitlines()[1:]] == ["stopped", "stopped"]
    assert shell.skep("local kill m1") == 1
    assert "m1: not running; 'skep local start' starts it" in shell.err


def test_a_fault_of_our_own_is_still_one_line(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(options: object) -> None:
        raise ZeroDivisionError("oops\nmore")

    monkeypatch.setattr("skep.cli.commands.version.show", broken)
    assert shell.skep("version") == 1
    assert shell.err.startswith("skep: error: a fault of skep's own: ZeroDivisionError: oops more;")


def test_ctrl_c_is_no_traceback(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("skep.cli.commands.version.show", interrupted)
    assert shell.skep("version") == 130


# ---------------------------------------------------------------------------- the rest


@pytest.mark.parametrize(
    ("text", "expected"), [("90", 90), ("1.5m", 90), ("1m30s", 90), ("500ms", 0.5), ("0", 0)]
)
def test_timeouts(text: str, expected: float) -> None:
    assert parser.seconds(text) == expected


def test_the_version_is_an_option_too(shell: Shell) -> None:
    assert shell.skep("version") == 0
    told = shell.out
    assert shell.skep("--version") == 0
    assert shell.out == told


def test_version_loads_nothing_that_is_slow() -> None:
    script = (
        "import sys; from skep.cli.main import main; main(['version']); "
        "print([m for m in ('grpc', 'yaml', 'google.protobuf') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert re.fullmatch(r"skep \d+\.\d+\.\d+\n\[\]\n", done.stdout)


def test_a_terminal_without_the_characters_gets_their_numbers() -> None:
    script = (
        "import sys; from skep.cli import output; from skep.cli.commands import version; "
        "from skep.cli.main import main; "
        "version.show = lambda options: output.write({'a': 'wei\xdf'}, shape=sys.argv[1]); "
        "main(['version']); sys.exit(main(['\xdf']))"
    )
    for shape, says in (("yaml", 'a: "wei\\xDF"\n'), ("json", '{\n  "a": "wei\\u00df"\n}\n')):
        done = subprocess.run(
            [sys.executable, "-c", script, shape],
            capture_output=True,
            text=True,
            timeout=60,
            env={"LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
        )
        assert done.stdout == says
        assert "invalid choice: '\\xdf'" in done.stderr


def test_a_reader_who_has_had_enough_is_no_error() -> None:
    command = f"{sys.executable} -m skep.cli.main --help | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == ""
