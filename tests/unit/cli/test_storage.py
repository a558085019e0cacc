"""`skep config`, `secret`, `registry` and `volume`, and what stacks have of them."""

from __future__ import annotations

import base64
import getpass
import io
import json
import sys

import pytest

from skep.cli.changes import Sight
from skep.cli.commands import stack as stack_commands
from skep.cli.stackfiles import placed
from skep.domain.base import ConfigId, VolumeId, pairs, replace
from skep.domain.control import WatchAction, WatchEvent
from skep.domain.filecalls import SecretView
from skep.domain.objects import Config, Registry, Secret, Volume, VolumePlace
from skep.domain.spec import DOCKER, RunSpec, ServiceSpec, StackSpec, TaskSpec
from skep.domain.storage import ConfigSpec, FileUse, Mount, MountKind, SecretSpec
from skep.stackfile import ReadStack
from tests.unit.cli.shell import Shell, columns

# One whose tasks may have files and volumes.
HIDDEN = "xyzzy-swordfish"


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def using(
    name: str = "web", configs: tuple[str, ...] = (), secrets: tuple[str, ...] = ()
) -> ServiceSpec:
    run = RunSpec(
        image="app",
        command=("serve",),
        configs=tuple(FileUse(name=each) for each in configs),
        secrets=tuple(FileUse(name=each, target=each) for each in secrets),
    )
    return ServiceSpec(name=name, task=TaskSpec(run=run, engine=DOCKER))


def use(shell: Shell, spec: ServiceSpec) -> None:
    shell.control.create(shell.control.storage.with_ids(spec))


# ------------------------------------------------------------------------ configs and secrets


@pytest.mark.parametrize("kind", ["config", "secret"])
def test_one_from_birth_to_death(shell: Shell, kind: str) -> None:
    path = shell.file("hello\n", "hello.txt")
    assert shell.skep(f"{kind} create --label team=shop -l a=b hello {path}") == 0, shell.err
    rows: list[Config | Secret] = [
        *shell.control.storage.tables.all(Config),
        *shell.control.storage.tables.all(Secret),
    ]
    [row] = rows
    assert shell.out == f"{row.id}\n"
    assert (row.name, row.spec.data) == ("hello", b"hello\n")
    assert row.spec.labels == (("a", "b"), ("team", "shop"))
    assert shell.skep(f"{kind} create hello {path}") == 5
    assert f"a {kind} called 'hello' exists, and can't be changed" in shell.err
    assert shell.skep(f"{kind} ls") == 0
    head, found = shell.out.splitlines()
    assert columns(head) == ["ID", "NAME", "CREATED", "UPDATED", "SERVICES"]
    assert columns(found)[:2] == [row.id[:12], "hello"]
    assert columns(found)[-1] == "0"
    assert shell.skep(f"{kind} ls -q") == 0
    assert shell.out == f"{row.id}\n"
    use(shell, using(configs=("hello",)) if kind == "config" else using(secrets=("hello",)))
    assert shell.skep(f"{kind} rm hello") == 5
    assert f"{kind} 'hello' is used by service web; remove them, or take" in shell.err
    assert shell.rows(f"{kind} ls")[0]["services"] == 1
    shell.control.services.clear()
    assert shell.skep(f"{kind} rm {row.id[:6]}") == 0
    assert shell.out == "hello\n"
    assert shell.rows(f"{kind} list") == []
    assert shell.skep(f"{kind} remove hello") == 1
    assert f"there is no {kind} 'hello'" in shell.err


def test_content_may_come_from_stdin(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin(monkeypatch, b"a\x00\xff\n")
    assert shell.skep("config create x -") == 0, shell.err
    [row] = shell.control.storage.tables.all(Config)
    assert row.spec.data == b"a\x00\xff\n"


def test_what_can_not_be_is_told_as_such(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shell.skep(f"config create x {shell.folder}/nosuch") == 2
    assert "nosuch: No such file or directory" in shell.err
    assert shell.skep(f"config create .x {shell.file('1')}") == 2
    assert "spec.name: '.x' can't be a config's name" in shell.err
    assert shell.skep(f"secret create x {shell.file('')}") == 2
    assert "secret 'x' is empty" in shell.err
    big = shell.file("x" * (500 * 1024 + 1), "big")
    assert shell.skep(f"secret create x {big}") == 2
    assert "big: more than 512000 bytes (500 KiB), which is the limit" in shell.err
    assert shell.skep(f"config create x {big}") == 0
    stdin(monkeypatch, b"x" * (1000 * 1024 + 1))
    assert shell.skep("config create y -") == 2
    assert "config 'y' has 1024001 bytes, the limit is 1024000" in shell.err
    assert shell.skep(f"config create --label =a z {big}") == 2


@pytest.mark.parametrize("kind", ["config", "secret"])
def test_lists_are_narrowed(shell: Shell, kind: str) -> None:
    for name, labels in (("web-a", "--label tier=1"), ("web-b", ""), ("db", "--label tier=2")):
        assert shell.skep(f"{kind} create {labels} {name} {shell.file(name)}") == 0

    def names(line: str) -> list[object]:
        return [row["name"] for row in shell.rows(f"{kind} ls {line}")]

    assert names("") == ["db", "web-a", "web-b"]
    assert names("--filter name=web") == ["web-a", "web-b"]
    assert names("-f label=tier") == ["db", "web-a"]
    assert names("-f label=tier=2 -f name=web") == []
    assert shell.skep(f"{kind} ls -f stack=nosuch") == 1
    assert "there is no stack 'nosuch'" in shell.err
    assert shell.skep(f"{kind} ls -f tier=2") == 2
    assert "write one of name=, id=, label=, stack=" in shell.err


def test_a_config_shows_what_it_holds(shell: Shell) -> None:
    path = shell.file("one\n\ttwo \x1b[2J\n")
    shell.skep(f"config create --label a=b conf {path}")
    assert shell.skep("config inspect --pretty conf") == 0, shell.err
    told = shell.out.splitlines()
    assert told[0].startswith("ID:  ")
    assert told[1].split() == ["Name:", "conf"]
    assert told[2:4] == ["Labels:", " a:                      b"]
    assert told[4].startswith("Created at:")
    assert told[-3:] == ["Data:", "one", "\ttwo  [2J"]
    assert shell.skep("config inspect conf") == 0
    [found] = json.loads(shell.out)
    whole = base64.b64decode(found["config"]["spec"]["data"])
    assert whole == b"one\n\ttwo \x1b[2J\n"
    assert shell.skep("config inspect conf -f", "{{.Spec.Name}} {{.Spec.Data}}") == 0
    assert shell.out == f"conf {base64.b64encode(whole).decode()}\n"
    assert shell.skep("config inspect --format yaml conf") == 0
    assert "name: conf" in shell.out
    assert shell.skep("config inspect --pretty -f {{.ID}} conf") == 2
    assert shell.skep("config inspect nosuch") == 1
    (shell.folder / "b").write_bytes(b"\xff\xfe\x00")
    shell.skep(f"config create bytes {shell.folder}/b")
    shell.skep("config inspect --pretty bytes")
    assert shell.out.endswith(
        "Data:\n(3 bytes that are no text; --format json has them in base64)\n"
    )


def test_a_secret_never_shows_what_it_holds(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shell.file(HIDDEN, "key")
    stdin(monkeypatch, HIDDEN.encode())
    seen = ""
    for line in (
        f"secret create key {path}",
        f"secret create key {path}",
        f"secret create k/ey {path}",
        "registry login -u me --password-stdin",
        "secret ls",
        "secret ls --format json",
        "secret inspect key",
        "secret inspect --pretty key",
        "secret inspect --format yaml key",
        "secret inspect -f {{.Spec.Name}} key",
        "secret inspect -f {{.Spec.Data}} key",
        "registry ls",
        "registry ls --format yaml",
        "secret rm key",
    ):
        shell.skep(line)
        seen += shell.out + shell.err
    assert "there is no field .Spec.Data; .Spec has Name, Labels" in seen
    assert seen.count("key\n") >= 3
    forms = (HIDDEN, base64.b64encode(HIDDEN.encode()).decode())
    assert not [form for form in forms if form in seen]


# -------------------------------------------------------------------------------- registries


def test_a_login_from_birth_to_death(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin(monkeypatch, f"{HIDDEN}\n".encode())
    assert shell.skep("registry login -u me --password-stdin https://index.docker.io/v1/") == 0
    assert shell.out == "docker.io\n"
    assert "nodes log in to docker.io as me from now on" in shell.err
    [row] = shell.control.storage.tables.all(Registry)
    assert (row.username, row.password) == ("me", HIDDEN)
    assert shell.skep("registry login -u you -p pw reg.example.com:5000") == 0
    assert "skep: warning: others on this machine can see --password" in shell.err
    assert shell.skep("registry ls") == 0
    head, first, second = shell.out.splitlines()
    assert columns(head) == ["REGISTRY", "USERNAME", "UPDATED"]
    assert columns(first)[:2] == ["docker.io", "me"]
    assert columns(second)[:2] == ["reg.example.com:5000", "you"]
    assert shell.skep("registry ls -q") == 0
    assert shell.out == "docker.io\nreg.example.com:5000\n"
    assert shell.skep("registry logout reg.example.com:5000") == 0
    assert shell.skep("registry logout") == 0
    assert shell.out == "docker.io\n"
    assert shell.skep("registry logout") == 1
    assert "there is no registry 'docker.io'" in shell.err


def test_a_password_is_asked_for_without_being_shown(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    asked: list[str] = []

    def ask(prompt: str, stream: object) -> str:
        asked.append(prompt)
        return HIDDEN

    monkeypatch.setattr(sys, "stdin", Terminal("me\n"))
    monkeypatch.setattr(getpass, "getpass", ask)
    assert shell.skep("registry login") == 0, shell.err
    assert asked == ["Password: "]
    assert shell.err.startswith("Username: ")
    [row] = shell.control.storage.tables.all(Registry)
    assert (row.username, row.password) == ("me", HIDDEN)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("login", "no terminal to ask at; give --username"),
        ("login -u me", "no terminal to ask at; give --password-stdin"),
        ("login --password-stdin", "--password-stdin needs --username"),
        ("login -u me -p x --password-stdin", "exclude each other"),
        ("login -u me -p x not/a//registry:x", ""),
        ("login -u me -p x", ""),
        ("login -u me --password-stdin", "password: required"),
        ("login -u me -p x a,b", "name: 'a,b' is not the address of a registry"),
        ("login --pasword-stdin", "did you mean --password-stdin"),
    ],
)
def test_what_a_login_needs(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, line: str, says: str
) -> None:
    stdin(monkeypatch, b"\n")
    assert shell.skep(f"registry {line}") == (2 if says else 0)
    assert says in shell.err


# ----------------------------------------------------------------------------------- volumes


def add_volume(shell: Shell, name: str, *places: tuple[str, int, str]) -> None:
    row = Volume(
        id=VolumeId(f"{name}-id"),
        name=name,
        places=tuple(
            VolumePlace(service_name=service, slot=slot, node_id=shell.control.nodes[node].id)
            for service, slot, node in places
        ),
    )
    shell.control.storage.put(row)


def test_volumes_and_where_they_are(shell: Shell) -> None:
    add_volume(shell, "data", ("db", 1, "w1-id"), ("db", 2, "w2-id"))
    add_volume(shell, "old")
    run = RunSpec(
        image="app",
        command=("keep",),
        mounts=(Mount(kind=MountKind.VOLUME, source="data", target="/data"),),
    )
    use(shell, ServiceSpec(name="db", task=TaskSpec(run=run, engine=DOCKER)))
    assert shell.skep("volume ls") == 0
    head, data, old = shell.out.splitlines()
    assert columns(head) == ["NAME", "NODES", "SERVICES"]
    assert columns(data) == ["data", "w1 (db.1), w2 (db.2)", "1"]
    assert old.split() == ["old", "0"]
    for line, found in (
        ("-f name=d", "data\n"),
        ("-f node=w2", "data\n"),
        ("-f node=w3", ""),
        ("-f dangling=true", "old\n"),
        ("-f dangling=false", "data\n"),
    ):
        assert shell.skep(f"volume ls -q {line}") == 0
        assert shell.out == found, line
    assert shell.skep("volume ls -f dangling=so") == 2
    assert shell.skep("volume inspect data") == 0
    [whole] = json.loads(shell.out)
    assert whole["services"] == ["db"]
    assert whole["volume"]["places"][0]["node_id"] == "w1-id"
    assert shell.skep("volume rm data") == 5
    assert "volume 'data' is used by service db" in shell.err
    assert shell.skep("volume rm old") == 0
    assert shell.out == "old\n"


# ------------------------------------------------------------------------------------ stacks


def stack_of(conf: bytes, key: bytes = b"k") -> ReadStack:
    """As a stack file with these contents is read."""
    spec = StackSpec(
        name="shop", services=(using("shop_web", ("shop_conf", "extra"), ("shop_key",)),)
    )
    return ReadStack(
        spec,
        {"shop_web": "shop.yml:2:3"},
        {},
        (ConfigSpec(name="shop_conf", data=conf),),
        (SecretSpec(name="shop_key", data=key),),
    )


def deploy(shell: Shell, monkeypatch: pytest.MonkeyPatch, stack: ReadStack) -> int:
    monkeypatch.setattr(stack_commands, "read_stack", lambda *_: stack)
    return shell.skep("stack deploy -c shop.yml")


def test_a_stacks_files_are_written_first_and_named_in_its_services(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert deploy(shell, monkeypatch, stack_of(b"1")) == 2
    assert (
        "shop.yml:2:3: service 'shop_web': there is no config 'extra'; create it with "
        "`skep config create extra FILE`"
    ) in shell.err
    shell.skep(f"config create extra {shell.file('x')}")
    assert deploy(shell, monkeypatch, stack_of(b"1")) == 0, shell.err
    # The first deploy, which was refused, had written them.
    assert shell.err.startswith("created shop_web\n")
    assert deploy(shell, monkeypatch, stack_of(b"1")) == 0
    assert shell.err.startswith("unchanged shop_web\n")
    assert deploy(shell, monkeypatch, stack_of(b"2")) == 0
    assert shell.err.startswith("created config shop_conf-2\nupdated shop_web\n")
    [service] = shell.control.services.values()
    run = service.spec.task.run
    assert [(each.name, each.target) for each in run.configs] == [
        ("shop_conf-2", "shop_conf"),
        ("extra", ""),
    ]
    assert [(each.name, each.target) for each in run.secrets] == [("shop_key", "shop_key")]
    names: dict[str, str] = {row.id: row.name for row in shell.control.storage.tables.all(Config)}
    assert [names[each.id] for each in run.configs] == ["shop_conf-2", "extra"]
    assert [row["name"] for row in shell.rows("config ls -f stack=shop")] == [
        "shop_conf",
        "shop_conf-2",
    ]
    assert shell.skep("stack rm shop") == 0
    assert [row["name"] for row in shell.rows("config ls")] == ["extra"]
    assert shell.rows("secret ls") == []


def test_a_managers_word_on_a_file_has_the_place_in_the_stack_file() -> None:
    message = "spec.services[0].task.run.secrets[1].name: there is no secret 'x'; create it"
    told = placed(message, stack_of(b"1"))
    assert told == "shop.yml:2:3: service 'shop_web': there is no secret 'x'; create it"


# -------------------------------------------------------------------------- events, completion


def test_events_tell_of_configs_and_secrets() -> None:
    spec = ConfigSpec(name="conf")
    config = Config(id=ConfigId("c1"), name="conf", spec=spec, stack="shop", version=1)
    secret = SecretView(id="s1", name="key", version=2, updated_ns=10**9)
    relabelled = replace(config, spec=replace(spec, labels=pairs({"a": "b"})), version=3)
    sight = Sight()
    changes = [
        sight.take(WatchEvent(version=1, action=WatchAction.CREATE, config=config)),
        sight.take(WatchEvent(version=2, action=WatchAction.CREATE, secret=secret)),
        sight.take(WatchEvent(version=3, action=WatchAction.UPDATE, config=relabelled)),
        sight.take(WatchEvent(version=4, action=WatchAction.REMOVE, secret=secret)),
    ]
    assert [f"{each.subject}: {each.what}" for each in changes if each] == [
        "config conf: created",
        "secret key: created",
        "config conf: labels changed",
        "secret key: removed",
    ]
    assert [each.stack for each in changes if each] == ["shop", None, "shop", None]


def test_names_are_completed(shell: Shell) -> None:
    for line in ("config create conf", "secret create key"):
        shell.skep(f"{line} {shell.file('x')}")
    shell.skep("registry login -u me -p pw reg.example.com")
    add_volume(shell, "data")
    for kind, name in (
        ("configs", "conf"),
        ("secrets", "key"),
        ("registries", "reg.example.com"),
        ("volumes", "data"),
    ):
        assert shell.skep(f"__complete {kind}") == 0
        assert shell.out == f"{name}\n"
