"""Configs, secrets, registries and volumes at a manager's door: what comes in, and never out."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, TypeVar

import pytest

from skep.api import codec
from skep.domain.base import RegistryId, Struct, VolumeId, pairs, replace
from skep.domain.control import (
    GetRequest,
    RemoveRequest,
    RemoveResponse,
    WatchAction,
    WatchEvent,
    WatchRequest,
)
from skep.domain.filecalls import (
    ConfigView,
    CreateConfigRequest,
    CreateSecretRequest,
    ListConfigsRequest,
    ListConfigsResponse,
    ListRegistriesRequest,
    ListRegistriesResponse,
    ListSecretsRequest,
    ListSecretsResponse,
    ListVolumesRequest,
    ListVolumesResponse,
    RegistryView,
    SecretView,
    SetRegistryRequest,
    VolumeView,
)
from skep.domain.objects import Config, Registry, Secret, Volume, VolumePlace
from skep.domain.session import FileKind, GivenFile, GivenLogin
from skep.domain.spec import DOCKER, ServiceSpec
from skep.domain.storage import (
    CONFIG_LIMIT_BYTES,
    SECRET_LIMIT_BYTES,
    ConfigSpec,
    Mount,
    MountKind,
    SecretSpec,
)
from skep.domain.storagechecks import registry_name
from skep.env import CallError, Code, Env, Rejected
from skep.manager.control.core.registries import remove_registry, set_registry
from skep.manager.control.core.volumes import remove_volume, uses, volume_views
from skep.manager.control.watch import Watches
from tests.support.simulated import in_simulation
from tests.unit.manager.build import node, service_spec
from tests.unit.manager.control.office import Office
from tests.unit.manager.control.test_control import Desk, at_desk
from tests.unit.manager.streams import FakeStream

A = TypeVar("A", bound=Struct)
HIDDEN = "xyzzy-swordfish"


# ------------------------------------------------------------------------------ by the handlers


def test_a_created_config_is_told_as_it_was_committed_and_once() -> None:
    async def body(desk: Desk) -> None:
        spec = ConfigSpec(name="conf", data=b"x" * CONFIG_LIMIT_BYTES, labels=pairs({"a": "b"}))
        request = CreateConfigRequest(request_id="r1", spec=spec)
        made = [await desk.ask("CreateConfig", request, ConfigView) for _ in range(2)]
        assert made[0] == made[1]
        assert made[0].config.version == 1
        assert made[0].config.spec == replace(spec, data=b"")
        [row] = desk.store.tables.all(Config)
        whole = await desk.ask("GetConfig", GetRequest(ref="conf"), ConfigView)
        assert (whole.config, whole.config.spec) == (row, spec)
        listed = await desk.ask("ListConfigs", ListConfigsRequest(), ListConfigsResponse)
        assert listed.configs == (made[0],)
        request_to_remove = RemoveRequest(request_id="r2", ref="conf")
        gone = await desk.ask("RemoveConfig", request_to_remove, RemoveResponse)
        assert (gone.id, gone.name) == (row.id, "conf")
        again = await desk.ask("CreateConfig", request, ConfigView)
        assert again.config.id == row.id
        assert not list(desk.store.tables.all(Config))

    at_desk(body)


def test_the_largest_secret_is_taken() -> None:
    async def body(desk: Desk) -> None:
        spec = SecretSpec(name="key", data=b"x" * SECRET_LIMIT_BYTES)
        made = await desk.ask(
            "CreateSecret", CreateSecretRequest(request_id="r", spec=spec), SecretView
        )
        assert (made.name, made.version) == ("key", 1)

    at_desk(body)


def test_a_secret_and_a_password_never_come_out(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def body(desk: Desk) -> None:
        out: list[Any] = []
        secret = SecretSpec(name="key", data=HIDDEN.encode())
        login = {"name": "docker.io", "username": "me", "password": HIDDEN}
        calls: list[tuple[str, Struct, type[Struct]]] = [
            ("CreateSecret", CreateSecretRequest(request_id="r1", spec=secret), SecretView),
            ("SetRegistry", SetRegistryRequest(request_id="r2", **login), RegistryView),
            ("GetSecret", GetRequest(ref="key"), SecretView),
            ("ListSecrets", ListSecretsRequest(), ListSecretsResponse),
            ("ListRegistries", ListRegistriesRequest(), ListRegistriesResponse),
            # What is refused.
            ("CreateSecret", CreateSecretRequest(request_id="r3", spec=secret), SecretView),
            ("CreateSecret", CreateSecretRequest(request_id="r2", spec=secret), SecretView),
            ("SetRegistry", SetRegistryRequest(request_id="r1", **login), RegistryView),
            ("SetRegistry", SetRegistryRequest(request_id="", **login), RegistryView),
            (
                "SetRegistry",
                SetRegistryRequest(request_id="r4", **{**login, "name": "a b"}),
                RegistryView,
            ),
            (
                "CreateSecret",
                CreateSecretRequest(
                    request_id="r5", spec=replace(secret, data=secret.data * 100_000)
                ),
                SecretView,
            ),
            (
                "CreateSecret",
                CreateSecretRequest(request_id="r6", spec=replace(secret, name="no name")),
                SecretView,
            ),
            ("RemoveSecret", RemoveRequest(request_id="r7", ref="key"), RemoveResponse),
            ("RemoveRegistry", RemoveRequest(request_id="r8", ref="docker.io"), RemoveResponse),
        ]
        refused = 0
        for name, request, kind in calls:
            logging.getLogger("skep").debug("%s %r", name, request)
            try:
                out.append(repr(await desk.ask(name, request, kind)))
                handler = desk.handlers[f"skep.v1.Control/{name}"]
                out.append(await handler(codec.encode(request)))
            except (Rejected, CallError) as error:
                refused += 1
                out += [repr(error), str(error), repr(getattr(error, "details", ""))]
        assert refused == 7, out
        out += desk.store.window.since(0) or ()
        assert len(out) > 25
        for each in out:
            assert HIDDEN.encode() not in (each if isinstance(each, bytes) else b"")
            assert HIDDEN not in repr(each)

    at_desk(body)
    assert "SetRegistry" in caplog.text
    assert HIDDEN not in caplog.text


def test_what_nodes_are_given_is_not_shown_in_words() -> None:
    file = GivenFile(id="i", name="key", kind=FileKind.SECRET, data=HIDDEN.encode())
    login = GivenLogin(server="docker.io", username="me", password=HIDDEN)
    registry = Registry(id=RegistryId("r"), name="docker.io", username="me", password=HIDDEN)
    for each in (file, login, registry):
        assert HIDDEN not in repr(each)
        assert "..." in repr(each)


def test_watchers_are_told_of_configs_and_secrets_without_their_data() -> None:
    async def body(env: Env) -> None:
        desk, stream = Desk(env), FakeStream()
        watcher = asyncio.ensure_future(Watches(env, desk.store).serve(stream))
        stream.say(WatchRequest(from_version=0, kinds=("config", "secret")))
        conf = ConfigSpec(name="conf", data=HIDDEN.encode())
        key = SecretSpec(name="key", data=HIDDEN.encode())
        await desk.ask("CreateConfig", CreateConfigRequest(request_id="1", spec=conf), ConfigView)
        await desk.ask("CreateSecret", CreateSecretRequest(request_id="2", spec=key), SecretView)
        await desk.ask("RemoveSecret", RemoveRequest(request_id="3", ref="key"), RemoveResponse)
        await asyncio.sleep(1.0)
        watcher.cancel()
        events = [each for each in stream.heard(WatchEvent) if each.action is not None]
        assert [each.action for each in events] == [
            WatchAction.CREATE,
            WatchAction.CREATE,
            WatchAction.REMOVE,
        ]
        [config_row] = desk.store.tables.all(Config)
        assert events[0].config == replace(config_row, spec=ConfigSpec(name="conf"))
        assert events[1].secret is not None
        assert (events[1].secret.name, events[1].secret.version) == ("key", 2)
        assert HIDDEN.encode() not in b"".join(stream.sent)

    in_simulation(body)


def test_a_stores_window_keeps_no_content() -> None:
    async def body(desk: Desk) -> None:
        spec = SecretSpec(name="key", data=b"x")
        await desk.ask("CreateSecret", CreateSecretRequest(request_id="r", spec=spec), SecretView)
        [row] = desk.store.tables.all(Secret)
        assert row.spec.data == b"x"
        kept = [each.row for each in desk.store.window.since(0) or ()]
        assert [each.spec.data for each in kept if isinstance(each, Secret)] == [b""]

    at_desk(body)


# ----------------------------------------------------------------------------------- registries


HUB = ["", "docker.io", "index.docker.io", "https://index.docker.io/v1/", "registry-1.docker.io"]
OTHERS = {
    "Registry.Example.COM:5000": "registry.example.com:5000",
    "https://reg.example.com/": "reg.example.com",
    "http://localhost:5000/v2/": "localhost:5000",
    "[::1]:5000": "[::1]:5000",
}


@pytest.mark.parametrize("text", HUB)
def test_docker_hub_has_many_names(text: str) -> None:
    assert registry_name(text) == "docker.io"


@pytest.mark.parametrize("text", OTHERS)
def test_a_registry_has_one_name(text: str) -> None:
    assert registry_name(text) == OTHERS[text]


def login(office: Office, name: str, username: str = "me", password: str = "pw") -> RegistryView:
    request = SetRegistryRequest(request_id="r", name=name, username=username, password=password)
    return office.do(lambda tx: set_registry(tx, request, office.new_id))


def test_a_login_takes_the_place_of_the_one_before() -> None:
    office = Office()
    first = login(office, "https://index.docker.io/v1/")
    assert (first.name, first.username) == ("docker.io", "me")
    version = office.database.version
    login(office, "docker.io")
    assert office.database.version == version, "nothing is new"
    second = login(office, "docker.io", "you", "other")
    assert (second.id, second.username) == (first.id, "you")
    [row] = office.tables.all(Registry)
    assert (row.username, row.password) == ("you", "other")
    login(office, "reg.example.com")
    assert office.remove(remove_registry, "index.docker.io").name == "docker.io"
    assert office.remove(remove_registry, "reg.example.com").name == "reg.example.com"
    with pytest.raises(CallError, match=r"there is no registry 'reg\.example\.com'"):
        office.remove(remove_registry, "reg.example.com")


BAD_LOGINS = {
    "name": {"name": "no registry"},
    "username": {"username": ""},
    "password": {"password": ""},
}


@pytest.mark.parametrize("field", BAD_LOGINS)
def test_a_login_that_can_not_be_is_refused(field: str) -> None:
    with pytest.raises(Rejected) as caught:
        login(Office(), **{"name": "reg.example.com", **BAD_LOGINS[field]})
    assert caught.value.field == field
    with pytest.raises(Rejected, match="longer than 16384 characters"):
        login(Office(), "reg.example.com", password="x" * 16385)


# -------------------------------------------------------------------------------------- volumes


def mounting(*sources: str, kind: MountKind = MountKind.VOLUME) -> ServiceSpec:
    of = service_spec()
    mounts = tuple(Mount(kind=kind, source=each, target=f"/{n}") for n, each in enumerate(sources))
    run = replace(of.task.run, image="app", mounts=mounts)
    return replace(of, task=replace(of.task, run=run, engine=DOCKER))


def test_who_uses_a_volume() -> None:
    assert uses(mounting("data"), "data")
    assert uses(mounting("other", "data-{{.Task.Slot}}"), "data-3")
    assert uses(mounting("{{.Service.Name}}-data"), "web-data")
    assert not uses(mounting("data"), "data-3")
    assert not uses(mounting("data-{{.Task.Slot}}"), "data-")
    assert not uses(mounting("a.ta{{.Task.Slot}}"), "data3")
    assert not uses(mounting("data", kind=MountKind.BIND), "data")
    assert not uses(mounting(""), "")


def test_where_a_volume_is_is_forgotten_once_nobody_uses_it() -> None:
    place = VolumePlace(service_name="web", slot=1, node_id=node().id)
    office = Office(Volume(id=VolumeId("v1"), name="data", places=(place,)))
    office.create(mounting("data"))
    [view] = volume_views(office.tables, office.tables.all(Volume))
    assert (view.volume.places, view.services) == ((place,), ("web",))
    with pytest.raises(CallError, match="volume 'data' is used by service web; remove them") as e:
        office.remove(remove_volume, "data")
    assert e.value.code is Code.FAILED_PRECONDITION
    office.update(mounting())
    assert office.remove(remove_volume, "data").id == "v1"
    assert not list(office.tables.all(Volume))


def test_volumes_are_listed_by_name() -> None:
    async def body(desk: Desk) -> None:
        for number, name in enumerate(("b", "a")):
            row = Volume(id=VolumeId(f"v{number}"), name=name)
            await desk.store.update(lambda tx, row=row: tx.create(row))  # type: ignore[misc]
        listed = await desk.ask("ListVolumes", ListVolumesRequest(), ListVolumesResponse)
        assert [each.volume.name for each in listed.volumes] == ["a", "b"]
        assert (await desk.ask("GetVolume", GetRequest(ref="v1"), VolumeView)).volume.name == "a"
        gone = RemoveRequest(request_id="r", ref="a")
        assert (await desk.ask("RemoveVolume", gone, RemoveResponse)).id == "v1"

    at_desk(body)
