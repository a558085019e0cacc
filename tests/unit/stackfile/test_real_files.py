"""Stack files that people use: each is read, or refused by the names and places of its keys."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from skep.stackfile import Reading, StackFileError, StackText, decode, errors, read

STACKS = Path(__file__).parents[4] / "shared" / "stacks"
FILES = sorted(STACKS.glob("*/*.y*ml")) if STACKS.is_dir() else []
# A file and what is laid over it.
NUMBERS = "diamol/ch14__exercises__numbers__"
WHOAMI = "diamol/ch20__exercises__whoami__"
SETS = [
    ("swarm/dogvscat__stack-elk.yml", "swarm/dogvscat__stack-elk.override.yml"),
    (
        f"{NUMBERS}docker-compose.yml",
        f"{NUMBERS}prod.yml",
        f"{NUMBERS}prod-healthcheck.yml",
        f"{NUMBERS}prod-update-config.yml",
        f"{NUMBERS}prod-rollback-config.yml",
    ),
    (f"{WHOAMI}docker-compose.yml", f"{WHOAMI}override-traefik-sticky.yml"),
]
# Those that the files demand.
NAMES = ("DOMAIN", "USERNAME", "EMAIL", "ADMIN_USER", "ADMIN_PASSWORD", "HASHED_PASSWORD")
VARIABLES = dict.fromkeys(NAMES, "x")
pytestmark = pytest.mark.skipif(not FILES, reason=f"there are no real stack files in {STACKS}")


def lines_of(*paths: Path) -> dict[str, list[str]]:
    return {path.name: decode(path.read_bytes(), file=path.name).splitlines() for path in paths}


def problems(*paths: Path, engine: str = "process") -> list[str]:
    files = [StackText(path.name, decode(path.read_bytes(), file=path.name)) for path in paths]
    # Whatever stands beside a file: what it says is not of interest here.
    reading = Reading(
        VARIABLES, name="s", folder="/srv", open=lambda path: b"A=1\n", default_engine=engine
    )
    try:
        read(files, reading)
    except StackFileError as error:
        return [str(error), *error.others]
    return []


def check(line: str, lines: dict[str, list[str]]) -> None:
    """What a problem says of a key stands at the place it names."""
    if re.fullmatch(r"[0-9]+ more; mend these first", line):
        return
    found = re.search(r"(?P<file>[\w.-]+):(?P<line>[0-9]+):(?P<column>[0-9]+)", line)
    assert found, line
    text = lines[found["file"]][int(found["line"]) - 1]
    assert 1 <= int(found["column"]) <= len(text) + 1, line
    rest = text[int(found["column"]) - 1 :]
    key = re.search(
        r"can't do '([\w-]+)' \(|: '([\w-]+)' is not supported|unknown key '(.+?)'", line
    )
    if key:
        assert rest.lstrip("\"'").startswith(next(filter(None, key.groups()))), line
    if "variable '" in line:
        assert rest.startswith("$"), line


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_real_file(path: Path) -> None:
    lines = lines_of(path)
    for line in problems(path):
        check(line, lines)


# What is still wrong with their networks: drivers of one machine, and parts of a stack that are
# meant to be laid over the rest of it.
LEFT = re.compile(r"driver 'bridge'|'network_mode'|network '(elk|app-net)' is not under")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_networks_and_protocols_of_a_real_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "SHOWN_LIMIT", errors.KEPT_LIMIT)
    for line in problems(path):
        assert LEFT.search(line) or not re.search(r"network|udp|endpoint_mode|expose", line), line


# Why a file is no stack of containers by itself: Docker refuses it too, or it is for laying over
# another; nothing is built here; and what Skep hasn't got yet.
NO_STACK = re.compile(
    r"engine 'docker' runs images, and none is named|is not under '(networks|secrets):'|"
    r"'\$' is not followed|'service:elasticsearch' is the network of another"
)
NOT_HERE = re.compile(
    r"a cluster builds no images|mode 'global'|driver 'bridge'|names an address to listen on|"
    r"a path of Windows"
)
# Fewer would be a loss; these are all that say nothing of the above.
LEAST_WHOLE = 47


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_containers_of_a_real_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "SHOWN_LIMIT", errors.KEPT_LIMIT)
    lines = lines_of(path)
    for line in problems(path, engine="docker"):
        check(line, lines)
        assert NO_STACK.search(line) or NOT_HERE.search(line), line


def test_many_real_files_are_stacks_of_containers_as_they_are() -> None:
    whole = [path for path in FILES if not problems(path, engine="docker")]
    assert len(whole) >= LEAST_WHOLE, f"{len(whole)} of {len(FILES)}"


@pytest.mark.parametrize("names", SETS, ids=lambda names: Path(names[-1]).name)
def test_real_files_that_are_merged(names: tuple[str, ...]) -> None:
    paths = [STACKS / name for name in names]
    lines = lines_of(*paths)
    for line in problems(*paths):
        check(line, lines)
