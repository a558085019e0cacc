"""Completion, in the shells themselves."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from skep.cli import completion, parser, shells
from skep.cli.main import main
from tests.unit.cli.shell import STACK, Shell

SHELLS = {"bash": shells.bash, "zsh": shells.zsh, "fish": shells.fish}
FILES = "(files)"

# Stands for the command, and for the cluster that it would ask.
STUB = """\
#!/bin/sh
shift
case "$1" in
services) printf '%s\\n' shop_web shop_db "$2" ;;
scale) printf '%s\\n' shop_web= shop_db= ;;
revisions) shift; printf 'of-%s\\n' "$@" ;;
contexts) printf '%s\\n' default prod ;;
clusters) printf '%s\\n' lab ;;
*) printf '%s\\n' "$1-1" "$1-2" ;;
esac
echo complaint >&2
"""

BASH = """\
compopt() {{ [ "$2" = default ] && echo '{files}'; [ "$2" = nospace ] && echo '(no space)'; }}
source {script}
COMP_WORDS=(skep {words}); COMP_CWORD={count}
_skep
printf '%s\\n' "${{COMPREPLY[@]}}"
"""

ZSH = """\
compdef() {{ }}
compset() {{ [[ ${{funcstack[2]}} == _skep && "$*" == '-P *=' ]] || print "compset $*" >&2; }}
compadd() {{ [[ $1 == -S ]] && print '(no space)'; print -l -- $names }}
_files() {{ [[ -o sh_word_split ]] && print bad >&2; print '{files}' }}
source {script}
words=(skep {words}); CURRENT={next}
_skep
"""

FISH = """\
function __fish_complete_path; echo '{files}'; end
source {script}
complete -C {line}
"""


class Terminal:
    """A shell that has read the script."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.script = folder / "script"
        places = tuple(completion.places(parser.build()))
        self.script.write_text(SHELLS[name](places))
        stub = folder / "skep"
        stub.write_text(STUB)
        stub.chmod(0o755)

    def offers(self, *words: str) -> list[str]:
        """What is offered for the last of the words after "skep", without that which doesn't begin
        like it."""
        split = self._as_the_shell_splits(words)
        line = {"bash": BASH, "zsh": ZSH, "fish": FISH}[self.name].format(
            script=shlex.quote(str(self.script)),
            words=" ".join(map(shlex.quote, split)),
            count=len(split),
            next=len(split) + 1,
            line=shlex.quote(" ".join(["skep", *words])),
            files=FILES,
        )
        flags = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[self.name]
        done = subprocess.run(
            [self.name, *flags, "-c", line],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=self.folder,
            env={"PATH": f"{self.folder}:{os.environ['PATH']}", "HOME": str(self.folder)},
        )
        assert done.stderr == ""
        found = [each.partition("\t")[0] for each in done.stdout.splitlines() if each]
        last = words[-1]
        if self.name == "zsh" and last.startswith("--"):
            last = last.partition("=")[2] if "=" in last else last
        elif self.name == "bash":
            last = "" if split[-1] == "=" else split[-1]
        return sorted(each for each in found if each.startswith((last, "(")))

    def _as_the_shell_splits(self, words: tuple[str, ...]) -> list[str]:
        if self.name != "bash":
            return list(words)
        return [part for word in words for part in _parted(word)]


def _parted(word: str) -> list[str]:
    left, sign, right = word.partition("=")
    return [each for each in (left, sign, right) if each] or [""]


@pytest.fixture(params=sorted(SHELLS), scope="module")
def terminal(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed here; completion in it is not tested")
    return Terminal(request.param, tmp_path_factory.mktemp(request.param))


def test_commands_and_groups(terminal: Terminal) -> None:
    offered = terminal.offers("")
    assert {"up", "service", "node", "context", "events"} <= set(offered)
    assert "__complete" not in offered
    assert terminal.offers("serv") == ["service"]
    found = ["clean", "inspect", "ls", "ps", "rm", "setup-docker", "update"]
    assert terminal.offers("node", "") == found


def test_other_names_of_commands_are_understood_and_not_offered(terminal: Terminal) -> None:
    assert "list" not in terminal.offers("service", "")
    assert terminal.offers("service", "list", "--no-") == ["--no-trunc"]
    assert terminal.offers("service", "remove", "shop_w") == ["shop_web"]
    assert terminal.offers("stack", "up", "-c", "") == [FILES]
    assert terminal.offers("service", "ps", "list", "shop_w") == ["shop_web"]


def test_options_and_their_choices(terminal: Terminal) -> None:
    assert {"--format", "--quiet", "-q"} <= set(terminal.offers("service", "ls", "-"))
    assert terminal.offers("service", "ls", "--no-") == ["--no-trunc"]
    assert terminal.offers("service", "ls", "--format", "") == ["json", "table", "yaml"]
    assert terminal.offers("node", "update", "--availability", "d") == ["drain"]
    assert terminal.offers("completion", "") == ["bash", "fish", "zsh"]
    orders = ["start-first", "stop-first"]
    assert terminal.offers("service", "create", "--update-order", "") == orders
    assert terminal.offers("service", "update", "--rollback-failure-action", "p") == ["pause"]
    assert terminal.offers("service", "create", "--restart-condition", "on") == ["on-failure"]


def test_the_value_of_an_option_after_a_sign(terminal: Terminal) -> None:
    offered = terminal.offers("service", "ls", "--format=")
    start = "--format=" if terminal.name == "fish" else ""
    assert offered == [f"{start}json", f"{start}table", f"{start}yaml"]
    assert terminal.offers("service", "ls", "--format=table", "--sta") == ["--stale"]


def test_names(terminal: Terminal) -> None:
    assert terminal.offers("service", "ps", "") == ["shop_db", "shop_web"]
    assert terminal.offers("service", "ps", "shop_db", "shop_w") == ["shop_web"]
    assert terminal.offers("service", "inspect", "shop_d") == ["shop_db"]
    assert terminal.offers("service", "ps", "--format", "json", "shop_d") == ["shop_db"]
    assert terminal.offers("node", "ps", "") == ["nodes-1", "nodes-2"]
    assert terminal.offers("stack", "rm", "x", "") == ["stacks-1", "stacks-2"]
    assert terminal.offers("local", "kill", "") == ["processes-1", "processes-2"]
    assert terminal.offers("context", "use", "") == ["default", "prod"]
    assert terminal.offers("service", "ls", "--context", "p") == ["prod"]
    assert terminal.offers("local", "ls", "--name", "") == ["lab"]


@pytest.mark.parametrize(
    "reach", ["--cluster=lab", "--context=prod", "--managers-address=h:1", "--cluster lab"]
)
def test_names_are_of_the_cluster_that_was_named(terminal: Terminal, reach: str) -> None:
    """The stub repeats what it was told of the cluster."""
    offered = terminal.offers("service", "ps", *reach.split(), "")
    assert offered == sorted(["shop_db", "shop_web", reach.replace(" ", "=")])


def test_revisions_are_those_of_the_service_that_was_named(terminal: Terminal) -> None:
    """The stub repeats what it was told."""
    assert terminal.offers("service", "rollback", "web", "--to", "") == ["of-web"]
    assert terminal.offers("service", "rollback", "--to", "") == []
    assert terminal.offers("service", "diff", "web", "") == ["of-web"]
    offered = terminal.offers("service", "diff", "--cluster=lab", "web", "1", "")
    assert offered == ["of---cluster=lab", "of-web"]


def test_a_target_to_scale_goes_on_with_its_number(terminal: Terminal) -> None:
    offered = terminal.offers("service", "scale", "shop_w")
    assert [each for each in offered if each != "(no space)"] == ["shop_web="]
    assert terminal.name == "fish" or "(no space)" in offered


def test_files(terminal: Terminal) -> None:
    assert terminal.offers("up", "") == [FILES]
    assert terminal.offers("stack", "deploy", "-c", "") == [FILES]
    assert terminal.offers("service", "create", "--name", "") == []


def test_after_two_dashes_the_words_are_not_ours(terminal: Terminal) -> None:
    offered = terminal.offers("service", "create", "--", "ls", "-")
    assert "--help" not in offered
    assert "ls" not in offered


def test_every_command_of_the_parser_is_there() -> None:
    """Also those that are added tomorrow: the tables are read off the parser."""
    top = argparse.ArgumentParser(prog="skep")
    one = top.add_subparsers(metavar="COMMAND").add_parser("frob", help="do 'it'; rm -rf `x`")
    one.add_argument("--colour", choices=("red", "blue"))
    one.add_argument("refs", nargs="+", metavar="SERVICE|TASK")
    first, second = completion.places(top)
    assert first.commands == (("frob", "do 'it'; rm -rf `x`"),)
    assert second.options[1].spec == "red blue"
    assert (second.arguments, second.is_many) == (("@services @tasks",), True)
    for write in SHELLS.values():
        assert "red blue" in write((first, second))


# ------------------------------------------------------------------------------- names


def names(shell: Shell, *words: str) -> list[str]:
    assert main(["__complete", *words]) == 0
    out, err = shell.capsys.readouterr()
    assert err == ""
    return list(out.split())


def test_the_names_themselves(shell: Shell) -> None:
    assert shell.skep(f"stack deploy -c {shell.file(STACK)} shop") == 0
    assert names(shell, "services") == ["shop_clock", "shop_web"]
    assert names(shell, "scale") == ["shop_clock=", "shop_web="]
    assert names(shell, "nodes")[:2] == ["m1", "m2"]
    assert names(shell, "stacks") == ["shop"]
    tasks = ["shop_clock.1", "shop_web.1", "shop_web.2", "shop_web.3"]
    assert names(shell, "tasks") == tasks
    assert names(shell, "networks") == ["shop_default"]
    for task in tasks:
        assert shell.skep(f"service logs {task}") == 0
    assert shell.skep("service update shop_web --env-add A=1") == 0
    shell.capsys.readouterr()
    assert names(shell, "revisions", "shop_web") == ["2", "1"]
    assert names(shell, "revisions", "nope") == names(shell, "revisions") == []
    assert names(shell, "contexts") == ["default"]
    assert names(shell, "clusters") == []


def test_a_name_that_a_shell_would_run_is_not_offered(shell: Shell) -> None:
    node = shell.control.nodes.pop("w1-id")
    shell.control.nodes = {"x": msgspec.structs.replace(node, name="$(reboot)")}
    assert names(shell, "nodes") == []


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("frobs",),
        ("services", "--cluster=nope"),
        ("services", "--context=nope"),
        ("services", "--managers-address=nowhere"),
        ("services", "--unknown"),
        ("processes",),
    ],
)
def test_what_goes_wrong_is_silent(shell: Shell, words: tuple[str, ...]) -> None:
    assert names(shell, *words) == []


def test_a_manager_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        began = time.monotonic()
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "skep.cli.main",
                "__complete",
                "services",
                f"--managers-address=127.0.0.1:{port}",
            ],
            capture_output=True,
            timeout=60,
            env={**os.environ, "HOME": str(tmp_path)},
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    # The deadline, and the start of the interpreter on a busy machine.
    assert time.monotonic() - began < 10


def test_whatever_hangs_is_not_waited_for() -> None:
    code = (
        "import argparse, signal\n"
        "from skep.cli.commands import completion\n"
        "completion._KINDS['x'] = lambda options: signal.pause()\n"
        "completion.names(argparse.Namespace(words=['x']))\n"
        "raise SystemExit('went on')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
