"""How the command ends when it can't do what it was asked, and where it can't do it."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from skep.cli import options
from skep.cli.local import cluster as local
from skep.cli.local import core, home
from tests.unit.cli.shell import STACK, Shell
from tests.unit.client import fake

# ------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("service ps nope", 1, "no service 'nope'; see `skep service ls`"),
        ("service", 2, "the following arguments are required: COMMAND; see 'skep service --help'"),
        ("service frob", 2, "invalid choice: 'frob'"),
        ("service ls --timeout 3", 2, "unrecognized arguments"),
        ("service rm web --timeout soon", 2, "'soon' is not a duration"),
        ("service create --name web", 2, "add it after the options"),
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
        ("local ls", 2, "there is no cluster 'default' in"),
        ("node ls --context nope", 2, "there is no context 'nope' (from --context); there are def"),
        ("service ps nope_web.1", 1, "its service's tasks are in: skep service ps nope_web"),
        ("node ls --managers-address nowhere", 2, "'nowhere' is not an address"),
        ("up /nowhere.yml", 2, "/nowhere.yml: No such file"),
    ],
)
def test_every_error_is_one_line(shell: Shell, line: str, code: int, says: str) -> None:
    assert shell.skep(line) == code
    assert re.fullmatch(r"skep: error: [^\n]+\n", shell.err)
    assert says in shell.err


def test_a_revision_that_is_not_there_is_no_bad_usage(shell: Shell) -> None:
    assert shell.skep("service create --name web -- serve") == 0
    for line in ("service rollback web --to 99", "service diff web 1 99", "service diff web 99"):
        assert shell.skep(line) == 1
        assert "has no revision 99" in shell.err


@pytest.mark.parametrize(
    ("words", "is_told"),
    [("nginx", True), ("docker.io/my/app:1.2", True), ("nginx -g", False), ("./nginx", False)],
)
def test_an_image_as_the_command_is_told_from_a_program(
    shell: Shell, words: str, is_told: bool
) -> None:
    problem = f'web.1: "{words}" is no program on this node in PATH (/bin)'
    shell.control.is_quick = False
    shell.control.problems["web"] = (problem,)
    assert shell.skep(f"service create --name web --timeout 2s -- {words}") == 3
    line = (
        f"if '{words}' is an image: the process engine runs a command on the node, not an image, "
        "as in: skep service update web -- python3 -m http.server\n"
    )
    assert (line in shell.err) == is_told
    shell.control.problems["web"] = ("no suitable node",)
    assert shell.skep("service update web --env-add A=1 --timeout 2s") == 3
    assert "is an image" not in shell.err


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
    assert shell.skep("node ls") == 2
    assert "there is none at all; start one with 'skep up'" in shell.err
    assert shell.skep("down") == 0
    assert "nothing to stop, which is no failure" in shell.out


def test_a_cluster_that_is_not_there_is_told_with_those_that_are(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SKEP_ADDRESS")
    for name in ("lab", "demo"):
        with local.opened(home.Home(name), core.Wanted(1, 0)):
            pass
    assert shell.skep("node ls --cluster nope") == 2
    assert "there are demo, lab; start one with 'skep up'" in shell.err


def test_a_local_cluster_without_managers_is_told_at_once(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SKEP_ADDRESS")
    with local.opened(home.Home("default"), core.Wanted(2, 0)):
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
    assert options.seconds(text) == expected


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
