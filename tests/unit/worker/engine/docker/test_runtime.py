"""The runtime's part that changes a bundle, and dockerd's configuration."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from skep.cli.main import main
from skep.env import Rejected
from skep.worker.engine.docker.adapters import setup
from skep.worker.engine.docker.core.daemonfile import with_runtime
from skep.worker.engine.docker.runtime import create

SETKEY = {"path": "/proc/1/exe", "args": ["libnetwork-setkey", "-exec-root=/x", "id", "c"]}
GPU = {"path": "/usr/bin/nvidia-container-runtime-hook", "args": ["hook", "prestart"]}


def test_only_the_network_namespace_and_dockers_hook_are_changed() -> None:
    config = {
        "process": {"args": ["sh"]},
        "hooks": {"prestart": [SETKEY, GPU], "poststop": None},
        "linux": {
            "cgroupsPath": "/docker/x",
            "namespaces": [{"type": "mount"}, {"type": "network"}, {"type": "pid"}],
        },
    }
    create.put_into(config, "/run/skep/n1/netns/t1")
    assert config == {
        "process": {"args": ["sh"]},
        "hooks": {"prestart": [GPU], "poststop": []},
        "linux": {
            "cgroupsPath": "/docker/x",
            "namespaces": [
                {"type": "mount"},
                {"type": "pid"},
                {"type": "network", "path": "/run/skep/n1/netns/t1"},
            ],
        },
    }


def test_a_bundle_without_hooks_gets_none() -> None:
    config: dict[str, Any] = {}
    create.put_into(config, "/n")
    assert config == {"linux": {"namespaces": [{"type": "network", "path": "/n"}]}}


@pytest.mark.parametrize(
    ("words", "bundle", "log"),
    [
        ("--root /r --log /l create --bundle /b --pid-file /p abc", "/b", "/l"),
        ("--log=/l create --bundle=/b abc", "/b", "/l"),
        ("create -b /b abc", "/b", None),
        ("create abc", None, None),
    ],
)
def test_arguments(words: str, bundle: str | None, log: str | None) -> None:
    options, container_id = create.parse(words.split())
    assert (options.get("--bundle"), options.get("--log"), container_id) == (bundle, log, "abc")


def test_a_container_without_a_network_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(create, "LINKS", str(tmp_path))
    with pytest.raises(create.Refused, match="no network for container abc"):
        create.namespace_of("abc")
    (tmp_path / "abc").symlink_to(tmp_path / "gone")
    with pytest.raises(create.Refused, match="is gone"):
        create.namespace_of("abc")
    # What is left of a namespace's file after the machine was started anew.
    (tmp_path / "gone").touch()
    with pytest.raises(create.Refused, match="is no namespace"):
        create.namespace_of("abc")
    (tmp_path / "abc").unlink()
    (tmp_path / "abc").symlink_to("/proc/self/ns/net")
    assert create.namespace_of("abc") == "/proc/self/ns/net"


def test_dockers_configuration_keeps_what_else_is_in_it() -> None:
    told = '{"log-driver": "journald", "runtimes": {"nvidia": {"path": "n"}}}'
    changed = with_runtime(told, "/lib/skep-runtime")
    assert changed is not None
    assert json.loads(changed) == {
        "log-driver": "journald",
        "runtimes": {"nvidia": {"path": "n"}, "skep": {"path": "/lib/skep-runtime"}},
    }
    assert with_runtime(changed, "/lib/skep-runtime") is None
    assert (
        with_runtime("", "/p")
        == '{\n  "runtimes": {\n    "skep": {\n      "path": "/p"\n    }\n  }\n}\n'
    )


@pytest.mark.parametrize("text", ["{", "[]", '{"runtimes": []}'])
def test_a_configuration_that_is_none_is_left_alone(text: str) -> None:
    with pytest.raises(Rejected):
        with_runtime(text, "/p")


def test_setup_docker_says_what_it_did_and_does_it_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, file, pid_file = tmp_path / "lib", tmp_path / "etc/daemon.json", tmp_path / "none"
    words = ("node", "setup-docker", "--folder", str(folder), "--daemon-file", str(file))
    assert main((*words, "--pid-file", str(pid_file))) == 0
    assert capsys.readouterr().out == (
        f"wrote {folder}/skep-runtime\n"
        f"wrote {folder}/skep-runtime-create.py\n"
        f'{file}: runtime "skep" is {folder}/skep-runtime now\n'
        "dockerd doesn't run here; it finds the runtime when it starts\n"
    )
    assert (folder / setup.PROGRAM).stat().st_mode & stat.S_IXUSR
    before = file.stat()
    assert main((*words, "--pid-file", str(pid_file))) == 0
    assert capsys.readouterr().out.startswith(
        f'{folder} has the runtime already\n{file} has runtime "skep" already\n'
    )
    assert file.stat().st_ino == before.st_ino

    file.write_text("{,")
    assert main((*words, "--pid-file", str(pid_file))) == 2
    assert f"{file}: it is no JSON" in capsys.readouterr().err
