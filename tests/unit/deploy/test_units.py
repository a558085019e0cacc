"""systemd's units: what they start exists, and nothing in them harms tasks."""

from __future__ import annotations

import configparser
import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[3] / "deploy/systemd"
UNITS = {
    "skep-manager": "skep.manager.main",
    "skep-agent": "skep.worker.main",
    "skep-netproxy": "skep.netproxy.main",
}
# Each of these gives a service mounts of its own (systemd.exec(5)). What the netproxy mounts, the
# network namespaces of tasks, must be seen by the agent and by Docker.
OWN_MOUNTS = (
    "BindPaths", "InaccessiblePaths", "MountAPIVFS", "PrivateDevices", "PrivateMounts",
    "PrivateTmp", "ProtectControlGroups", "ProtectHome", "ProtectHostname", "ProtectKernelLogs",
    "ProtectKernelModules", "ProtectKernelTunables", "ProtectProc", "ProtectSystem",
    "ReadOnlyPaths", "ReadWritePaths", "RootDirectory", "TemporaryFileSystem",
)  # fmt: skip


def read(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string((FOLDER / f"{name}.service").read_text())
    return parser


def test_all_are_here() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(UNITS)


@pytest.mark.parametrize("name", UNITS)
def test_it_starts_what_there_is_and_again(name: str) -> None:
    unit = read(name)
    service = unit["Service"]
    assert f" -m {UNITS[name]} --config /etc/skep/" in service["ExecStart"]
    assert importlib.util.find_spec(UNITS[name]) is not None
    assert service["Restart"] == "always"
    # "start request repeated too quickly" would be the end of a node.
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"


@pytest.mark.parametrize("name", ["skep-agent", "skep-netproxy"])
def test_its_end_is_nobody_elses(name: str) -> None:
    service = read(name)["Service"]
    assert service["KillMode"] == "process"
    assert service["OOMPolicy"] == "continue"
    assert not set(OWN_MOUNTS) & set(service)


def test_tasks_inherit_no_restriction() -> None:
    service = read("skep-agent")["Service"]
    for key in ("NoNewPrivileges", "CapabilityBoundingSet", "OOMScoreAdjust", "RestrictSUIDSGID"):
        assert key not in service


@pytest.mark.parametrize("name", UNITS)
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_understands_it(name: str, tmp_path: Path) -> None:
    text = (FOLDER / f"{name}.service").read_text()
    copy = tmp_path / f"{name}.service"
    # Here Skep isn't where it is on a node, and the manager's user isn't there at all.
    copy.write_text(text.replace("/opt/skep/bin/python3", "/bin/sh").replace("User=skep\n", ""))
    done = subprocess.run(
        ("systemd-analyze", "verify", "--man=no", str(copy)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # It also reads units that are installed here, and may have something to say of those.
    assert [line for line in done.stderr.splitlines() if name in line] == []
