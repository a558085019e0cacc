"""Configs, secrets, logins and volumes by the SDK."""

from __future__ import annotations

import pytest

from skep.client import AlreadyExists, Cluster, InvalidArgument, NotFound, Refused, sync
from skep.domain.objects import Registry, Volume
from skep.domain.spec import DOCKER, RunSpec, ServiceSpec, StackSpec, TaskSpec
from skep.domain.storage import ConfigSpec, FileUse, SecretSpec
from tests.unit.client.fake import ADDRESSES, M1, seams
from tests.unit.client.test_calls import run

# One whose tasks may have files and volumes.
CONF = ConfigSpec(name="conf", data=b"some")
KEY = SecretSpec(name="key", data=b"hidden")


def using(configs: tuple[FileUse, ...], secrets: tuple[FileUse, ...] = ()) -> ServiceSpec:
    run = RunSpec(image="app", command=("serve",), configs=configs, secrets=secrets)
    return ServiceSpec(name="web", task=TaskSpec(run=run, engine=DOCKER))


def test_a_config_and_a_secret_from_birth_to_death() -> None:
    async def script(cluster: Cluster) -> None:
        config = (await cluster.configs.create(CONF)).config
        secret = await cluster.secrets.create(KEY)
        with pytest.raises(AlreadyExists):
            await cluster.configs.create(CONF)
        with pytest.raises(InvalidArgument, match="is empty"):
            await cluster.secrets.create(SecretSpec(name="no"))
        assert (await cluster.configs.get("conf")).config.spec == CONF
        assert [each.config.spec.data for each in await cluster.configs.list()] == [b""]
        assert [each.id for each in await cluster.secrets.list()] == [secret.id]
        service = await cluster.services.create(
            using((FileUse(name="conf"),), (FileUse(name="key"),))
        )
        assert service.spec.task.run.configs == (FileUse(name="conf", id=config.id),)
        assert (await cluster.secrets.get("key")).services == ("web",)
        with pytest.raises(Refused, match="is used by service web"):
            await cluster.secrets.remove("key")
        await cluster.services.update("web", using(()))
        assert (await cluster.configs.remove(config.id)).name == "conf"
        assert (await cluster.secrets.remove("key")).id == secret.id
        with pytest.raises(NotFound):
            await cluster.configs.get("conf")
        with pytest.raises(NotFound):
            await cluster.secrets.get("key")

    run(seams(), script)


def test_a_lost_answer_makes_nothing_twice() -> None:
    world = seams()
    world.transport.losing = {M1}

    async def script(cluster: Cluster) -> None:
        config = (await cluster.configs.create(CONF)).config
        assert [each.config.id for each in await cluster.configs.list()] == [config.id]

    run(world, script)


def test_a_deploy_writes_the_stacks_files_first() -> None:
    async def script(cluster: Cluster) -> None:
        uses = (FileUse(name="conf"), FileUse(name="conf", target="/etc/again"))
        spec = StackSpec(name="shop", services=(using(uses, (FileUse(name="key", target="k"),)),))
        names = []
        for data in (b"1", b"2", b"2", b"1"):
            answer = await cluster.stacks.deploy(
                spec, configs=(ConfigSpec(name="conf", data=data),), secrets=(KEY,)
            )
            [service] = answer.stack.spec.services
            names.append([(use.name, use.target) for use in service.task.run.configs])
            assert [use.name for use in service.task.run.secrets] == ["key"]
        assert names[0] == names[3] == [("conf", ""), ("conf", "/etc/again")]
        assert names[1] == names[2] == [("conf-2", "conf"), ("conf-2", "/etc/again")]
        assert len(await cluster.secrets.list(stack="shop")) == 1
        assert len(await cluster.configs.list(stack="shop")) == 2

    run(seams(), script)


def test_logins_and_volumes_without_an_event_loop() -> None:
    world = seams()
    with sync.connect(ADDRESSES, seams=world) as cluster:
        assert cluster.registries.login("Index.docker.io", "me", "pw").name == "docker.io"
        [row] = world.transport.control.storage.tables.all(Registry)
        assert row.password == "pw"
        assert [each.username for each in cluster.registries.list()] == ["me"]
        assert cluster.registries.logout("docker.io").name == "docker.io"
        with pytest.raises(NotFound):
            cluster.registries.logout("docker.io")
        world.transport.control.storage.put(Volume(id="v1", name="data"))  # type: ignore[arg-type]
        assert [each.volume.name for each in cluster.volumes.list()] == ["data"]
        assert cluster.volumes.get("v1").services == ()
        assert cluster.volumes.remove("data").id == "v1"
        assert cluster.configs.create(CONF).config.name == "conf"
        assert cluster.secrets.create(KEY).name == "key"
