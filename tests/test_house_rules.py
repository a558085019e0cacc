"""House rules that neither ruff nor import-linter can express."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("skep", "manager", "worker", "netproxy")
LOOP_METHODS = {"call_later", "run_in_executor", "create_task", "call_soon_threadsafe"}


def sources(*folders: str) -> list[Path]:
    """The real files of these folders, relative to the root: no symlinks, nothing generated."""
    found = []
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            if not path.name.endswith("_pb2.py") and not crosses_symlink(path):
                found.append(path.relative_to(ROOT))
    return sorted(found)


def crosses_symlink(path: Path) -> bool:
    return path.resolve() != path


def may_do_io(path: Path) -> bool:
    """Whether ruff lets this file past the seams; the list stands in pyproject.toml alone."""
    ignores = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"][
        "per-file-ignores"
    ]
    return any(
        "TID251" in rules and matches(path, pattern.removesuffix("**").rstrip("/"))
        for pattern, rules in ignores.items()
    )


def matches(path: Path, pattern: str) -> bool:
    """Whether a pattern of ruff's names this file or a folder that it is in."""
    candidates = [path, *path.parents]
    if pattern.startswith("**/"):
        return any(candidate.match(pattern.removeprefix("**/")) for candidate in candidates)
    depth = len(Path(pattern).parts)
    return any(
        len(candidate.parts) == depth and candidate.match(pattern) for candidate in candidates
    )


def breaches_of_seams(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "open"
        ):
            yield f"{node.lineno}: open() belongs behind Env's disk or in an adapter"
        if isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value).rpartition(".")[2].strip("_")
            if owner == "loop" and node.attr in {"time", "call_at", "call_soon"}:
                yield f"{node.lineno}: loop.{node.attr} belongs behind Env"
            if node.attr in LOOP_METHODS:
                yield f"{node.lineno}: .{node.attr} belongs behind Env"


def imported_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def breaches_of_layers(path: Path, tree: ast.AST) -> Iterator[str]:
    layer = next((part for part in path.with_suffix("").parts if part in {"core", "actor"}), None)
    for line, name in imported_names(tree):
        parts = name.split(".")
        if parts[0] in {"manager", "worker", "netproxy", "proto"}:
            yield f"{line}: {name} is imported as skep.{name}"
        if layer and parts[0] == "skep" and any(part.startswith("adapter_") for part in parts):
            yield f"{line}: a {layer} imports the adapter {name}"


@pytest.mark.parametrize("path", sources(*OURS), ids=str)
def test_the_seams_are_the_only_doors(path: Path) -> None:
    if may_do_io(path):
        return
    assert list(breaches_of_seams(ast.parse((ROOT / path).read_text()))) == []


@pytest.mark.parametrize("path", sources(*OURS, "tests", "bench"), ids=str)
def test_layers_that_are_told_by_file_names(path: Path) -> None:
    assert list(breaches_of_layers(path, ast.parse((ROOT / path).read_text()))) == []


def test_a_breach_is_found() -> None:
    tree = ast.parse(
        "import manager.store\n"
        "from skep.manager.store import adapter_disk\n"
        "open('x')\n"
        "self._loop.time()\n"
        "loop.run_in_executor(None, f)\n"
        "self._clock.call_at(1.0, f)\n"
    )
    lines = [breach.split(":")[0] for breach in breaches_of_seams(tree)]
    lines += [
        breach.split(":")[0] for breach in breaches_of_layers(Path("manager/x/core.py"), tree)
    ]
    assert sorted(lines) == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("skep/env.py", True),
        ("manager/raft/adapters/tcp.py", True),
        ("worker/engine/adapter_docker.py", True),
        ("netproxy/main.py", True),
        ("skep/cli/commands/ps.py", True),
        ("skep/domain/env.py", False),
        ("manager/scheduler/core.py", False),
    ],
)
def test_who_may_do_io(path: str, *, allowed: bool) -> None:
    assert may_do_io(Path(path)) is allowed


def test_constraints_name_no_index() -> None:
    assert "://" not in (ROOT / "constraints.txt").read_text()
