"""Configs, secrets and logins in a real cluster: kept through a leader's death, and kept secret."""

from __future__ import annotations

import base64
import gzip
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from skep.client import sync
from skep.domain.spec import DOCKER, RunSpec, ServiceSpec, TaskSpec
from skep.domain.storage import ConfigSpec, FileUse
from tests.support.local_cluster import ROOT, LocalCluster, eventually, local_cluster

pytestmark = pytest.mark.process

HIDDEN = "xyzzy-swordfish-of-the-e2e-test"
FORMS = (HIDDEN.encode(), base64.b64encode(HIDDEN.encode()), HIDDEN.encode().hex().encode())
NOTICED_S = 20.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    home = tmp_path_factory.mktemp("files")
    with local_cluster(home, "--workers", "1", stack=None) as it:
        yield it


@pytest.fixture
def sdk(cluster: LocalCluster) -> Iterator[sync.Cluster]:
    rows = [row for row in cluster.processes() if row["kind"] == "manager"]
    with sync.connect([str(row["address"]) for row in rows]) as it:
        yield it


def using(name: str, config: str, secret: str) -> ServiceSpec:
    """A service of no tasks: what it names is kept for it all the same."""
    run = RunSpec(
        image="app",
        command=("serve",),
        configs=(FileUse(name=config, target="/etc/app.conf"),),
        secrets=(FileUse(name=secret),),
    )
    return ServiceSpec(name=name, task=TaskSpec(run=run, engine=DOCKER), replicas=0)


def fed(cluster: LocalCluster, data: bytes, *words: str) -> str:
    """Run `skep words...` with this on its stdin."""
    done = subprocess.run(
        [sys.executable, "-m", "skep.cli.main", *words],
        env=cluster.environ,
        cwd=ROOT,
        input=data,
        capture_output=True,
        timeout=60.0,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.decode() + done.stderr.decode()


def test_configs_and_secrets_from_birth_to_death_through_a_leaders_death(
    cluster: LocalCluster, sdk: sync.Cluster, tmp_path: Path
) -> None:
    big = tmp_path / "big"
    big.write_bytes(bytes(range(256)) * 4000)
    id_ = cluster.skep("config", "create", "--label", "a=b", "conf", str(big)).strip()
    fed(cluster, HIDDEN.encode(), "secret", "create", "key", "-")
    service = sdk.services.create(using("web", "conf", "key"))
    assert [use.id for use in service.spec.task.run.configs] == [id_]

    leader = cluster.leader()
    cluster.kill(leader)
    try:
        eventually(lambda: cluster.leader() not in ("", leader), NOTICED_S, "another leader")
        assert [row["name"] for row in cluster.rows("config", "ls")] == ["conf"]
        found = sdk.configs.get("conf")
        assert (found.config.id, found.services) == (id_, ("web",))
        assert found.config.spec.data == big.read_bytes()
        for kind, name in (("config", "conf"), ("secret", "key")):
            done = cluster.run(kind, "rm", name)
            assert done.returncode == 5, done
            assert f"{kind} '{name}' is used by service web" in done.stderr
    finally:
        cluster.start(leader)

    sdk.services.remove("web")
    assert cluster.skep("config", "rm", "conf") == "conf\n"
    assert cluster.skep("secret", "rm", "key") == "key\n"
    assert cluster.run("config", "inspect", "conf").returncode == 1
    eventually(lambda: len(sdk.nodes.list(is_stale=True)) == 4, NOTICED_S)


def test_what_is_secret_comes_out_nowhere(cluster: LocalCluster, sdk: sync.Cluster) -> None:
    """Not in what the command says, events, the raw watch, metrics, or any log of the cluster."""
    began = sdk.info().version
    said = fed(cluster, HIDDEN.encode(), "secret", "create", "hidden", "-")
    login = ("registry", "login", "-u", "me", "--password-stdin", "reg.example.com")
    said += fed(cluster, HIDDEN.encode(), *login)
    sdk.services.create(using("user", _config(sdk), "hidden"))
    for words in (
        ("secret", "inspect", "hidden"),
        ("secret", "inspect", "--pretty", "hidden"),
        ("secret", "ls", "--format", "yaml"),
        ("registry", "ls", "--format", "json"),
        ("service", "inspect", "user"),
        ("service", "history", "user", "--format", "json"),
        ("events", "--since", str(began), "--until", str(sdk.info().version)),
    ):
        said += cluster.skep(*words)
    for words in (
        ("secret", "create", "hidden", "/etc/hostname"),
        ("secret", "rm", "hidden"),
        ("registry", "logout", "nosuch.io"),
    ):
        done = cluster.run(*words)
        assert done.returncode != 0
        said += done.stdout + done.stderr
    watched = cluster.skep("watch", "--from", str(began), "--until", str(sdk.info().version))
    lines = [json.loads(line) for line in watched.splitlines()]
    [told] = [line["object"] for line in lines if line.get("kind") == "secret"]
    assert (told["name"], "data" in told) == ("hidden", False)
    sdk.services.remove("user")

    metrics = b""
    for row in cluster.processes():
        if row["metrics"]:
            with urllib.request.urlopen(f"http://{row['metrics']}/metrics", timeout=5.0) as answer:
                metrics += answer.read()
    logs = b"".join(_content(Path(str(row["log"]))) for row in cluster.processes())
    assert b"skep_" in metrics
    assert logs
    out = said.encode() + watched.encode() + metrics + logs
    assert not [form for form in FORMS if form in out]
    # The journal has it, and this test would find it: it isn't encrypted yet.
    journals = b"".join(map(_content, cluster.home.rglob("*")))
    assert FORMS[0] in journals


def _config(sdk: sync.Cluster) -> str:
    return sdk.configs.create(ConfigSpec(name="plain", data=b"plain")).config.name


def _content(path: Path) -> bytes:
    if not path.is_file():
        return b""
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == ".gz" else data
