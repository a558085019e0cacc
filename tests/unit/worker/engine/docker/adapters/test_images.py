"""Pulling images from a registry of the tests' own by a real Docker engine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import aiodocker
import pytest

from skep.domain.base import SECOND_NS
from skep.domain.container import PullPolicy
from skep.domain.session import GivenLogin
from skep.domain.spec import HealthCheck
from skep.env import Rejected, Retryable
from skep.worker.engine.docker.adapters import images as images_module
from skep.worker.engine.docker.adapters.images import Images
from skep.worker.engine.docker.core.image import ImageFacts
from tests.support.dockerd import BUSYBOX, ApiError, Dockerd
from tests.support.images import make_image
from tests.support.registry import Registry, serving
from tests.unit.worker.engine.adapters.workbench import eventually, new_env

DEADLINE_S = 60.0
MISSING, ALWAYS, NEVER = PullPolicy.MISSING, PullPolicy.ALWAYS, PullPolicy.NEVER
LOGIN = "keeper", "honey"

Body = Callable[[Images, Registry], Coroutine[Any, Any, None]]


@contextlib.asynccontextmanager
async def images_of(engine: Dockerd) -> AsyncIterator[Images]:
    docker = aiodocker.Docker(url=engine.url)
    images = Images(docker, new_env())
    try:
        yield images
    finally:
        await images.close()
        await docker.close()


def with_registry(engine: Dockerd, registry: Registry, body: Body) -> None:
    async def whole() -> None:
        async with asyncio.timeout(DEADLINE_S), serving(registry), images_of(engine) as images:
            await body(images, registry)

    asyncio.run(whole())


@pytest.fixture(autouse=True)
def no_images_left(engine: Dockerd) -> Iterator[None]:
    """Ports of registries come again, and so would their images' names."""
    yield
    for image in engine.get("/images/json"):
        names = [*(image["RepoTags"] or ()), *(image["RepoDigests"] or ())]
        if not any(name.startswith("skep-test/") for name in names):
            engine.call("DELETE", f"/images/{image['Id']}?force=1")


def login(registry: Registry, password: str = LOGIN[1]) -> GivenLogin:
    return GivenLogin(server=registry.server, username=LOGIN[0], password=password)


def big(size: int) -> dict[str, bytes]:
    """A file that doesn't get smaller by being packed."""
    return {"big": os.urandom(size)}


# ----------------------------------------------------------------------------------- having them


def test_a_missing_image_is_pulled_and_described(engine: Dockerd) -> None:
    image = make_image(
        {"hello": b"hi"},
        Entrypoint=["/bin/echo"],
        Cmd=["hello"],
        Env=["A=1"],
        User="7",
        WorkingDir="/tmp",
        StopSignal="SIGINT",
        ExposedPorts={"80/tcp": {}, "53/udp": {}},
        Volumes={"/data": {}},
        Labels={"b": "2", "a": "1"},
        Healthcheck={"Test": ["CMD", "true"], "Interval": 5 * SECOND_NS, "Retries": 2},
    )

    async def body(images: Images, registry: Registry) -> None:
        name = registry.put("team/web", "1", image)
        facts = await images.ensure(name, "", MISSING, None)
        assert facts == ImageFacts(
            id=image.id,
            reference=name,
            digest=image.digest,
            os="linux",
            architecture="amd64",
            size_bytes=facts.size_bytes,
            entrypoint=("/bin/echo",),
            command=("hello",),
            env=("A=1",),
            user="7",
            working_dir="/tmp",
            stop_signal="SIGINT",
            exposed=("53/udp", "80/tcp"),
            volumes=("/data",),
            labels=(("a", "1"), ("b", "2")),
            health=HealthCheck(test=("CMD", "true"), interval_ns=5 * SECOND_NS, retries=2),
        )
        assert facts.size_bytes > 1_000_000

    with_registry(engine, Registry(), body)


def test_an_image_that_is_here_is_not_asked_for_again(engine: Dockerd) -> None:
    async def body(images: Images, registry: Registry) -> None:
        name = registry.put("web", "1", make_image())
        await images.ensure(name, "", MISSING, None)
        registry.asked.clear()
        await images.ensure(name, "", MISSING, None)
        await images.ensure(name, "", NEVER, None)
        assert registry.asked == []

    with_registry(engine, Registry(), body)


def test_an_image_that_was_made_here_is_found_by_its_tag(engine: Dockerd) -> None:
    async def body(images: Images, _registry: Registry) -> None:
        facts = await images.ensure(BUSYBOX, "", NEVER, None)
        assert (facts.reference, facts.digest, facts.command) == (BUSYBOX, "", ("sh",))

    with_registry(engine, Registry(), body)


def test_always_asks_and_gets_what_the_tag_means_now(engine: Dockerd) -> None:
    old, new = make_image({"v": b"1"}), make_image({"v": b"2"})

    async def body(images: Images, registry: Registry) -> None:
        name = registry.put("web", "1", old)
        assert (await images.ensure(name, "", ALWAYS, None)).id == old.id
        registry.put("web", "1", new)
        assert (await images.ensure(name, "", MISSING, None)).id == old.id
        assert (await images.ensure(name, "", ALWAYS, None)).id == new.id

    with_registry(engine, Registry(), body)


def test_a_pinned_image_is_that_very_content_whatever_the_tag_means(engine: Dockerd) -> None:
    old, new = make_image({"v": b"1"}), make_image({"v": b"2"})

    async def body(images: Images, registry: Registry) -> None:
        registry.put("web", "1", old)
        name = registry.put("web", "1", new)
        await images.ensure(name, "", MISSING, None)
        facts = await images.ensure(name, old.digest, MISSING, None)
        assert (facts.id, facts.digest) == (old.id, old.digest)
        assert facts.reference == f"{name}@{old.digest}"
        # Its name leads there also for the engine.
        made = engine.call("POST", "/containers/create", {"Image": facts.reference})
        assert engine.inspect(made["Id"])["Image"] == old.id
        engine.call("DELETE", f"/containers/{made['Id']}")

    with_registry(engine, Registry(), body)


def test_a_pinned_image_that_is_here_needs_no_registry_even_where_always_is_said(
    engine: Dockerd,
) -> None:
    image = make_image()

    async def body(images: Images, registry: Registry) -> None:
        name = registry.put("web", "1", image)
        await images.ensure(name, image.digest, MISSING, None)
        registry.asked.clear()
        registry.fail_status = 503
        await images.ensure(name, image.digest, ALWAYS, None)
        await images.ensure(f"{name}@{image.digest}", "", NEVER, None)
        assert registry.asked == []

    with_registry(engine, Registry(), body)


def test_a_local_image_of_the_same_name_is_no_pinned_one(engine: Dockerd) -> None:
    async def body(images: Images, registry: Registry) -> None:
        name = registry.put("web", "1", make_image({"v": b"1"}))
        await images.ensure(name, "", MISSING, None)
        with pytest.raises(Rejected, match=r'web:1@sha256:.* is not on this node.*"never"'):
            await images.ensure(name, make_image({"v": b"2"}).digest, NEVER, None)

    with_registry(engine, Registry(), body)


# --------------------------------------------------------------------------------------- logins


@pytest.mark.parametrize("auth", ["basic", "token"])
def test_a_registry_gets_its_login(engine: Dockerd, auth: str) -> None:
    async def body(images: Images, registry: Registry) -> None:
        name = registry.put("web", "1", make_image())
        facts = await images.ensure(name, "", MISSING, login(registry))
        assert facts.digest

    with_registry(engine, Registry(auth=auth, users=dict([LOGIN])), body)


@pytest.mark.parametrize("auth", ["basic", "token"])
def test_a_login_that_is_missing_is_named_and_may_still_come(engine: Dockerd, auth: str) -> None:
    async def body(images: Images, registry: Registry) -> None:
        name = registry.put("web", "1", make_image())
        hint = rf"needs a login: skep registry login {registry.server}"
        with pytest.raises(Retryable, match=hint):
            await images.ensure(name, "", MISSING, None)
        await images.ensure(name, "", MISSING, login(registry))

    with_registry(engine, Registry(auth=auth, users=dict([LOGIN])), body)


@pytest.mark.parametrize("auth", ["basic", "token"])
def test_a_wrong_login_is_refused_for_good(engine: Dockerd, auth: str) -> None:
    async def body(images: Images, registry: Registry) -> None:
        name = registry.put("web", "1", make_image())
        with pytest.raises(Rejected, match=r"refuses the login of 'keeper'.*skep registry login"):
            await images.ensure(name, "", MISSING, login(registry, "vinegar"))

    with_registry(engine, Registry(auth=auth, users=dict([LOGIN])), body)


# ------------------------------------------------------------------------------------- failures


def test_no_such_image(engine: Dockerd) -> None:
    async def body(images: Images, registry: Registry) -> None:
        registry.put("web", "1", make_image())
        for name in ("web:2", "other:1"):
            with pytest.raises(Rejected, match=f"registry {registry.server} has no such image"):
                await images.ensure(f"{registry.server}/{name}", "", MISSING, None)

    with_registry(engine, Registry(), body)


def test_a_registry_that_is_not_there(engine: Dockerd) -> None:
    async def body(images: Images, _registry: Registry) -> None:
        with pytest.raises(Retryable, match=r"registry 127\.0\.0\.1:1 can't be reached: .*refused"):
            await images.ensure("127.0.0.1:1/web:1", "", MISSING, None)

    with_registry(engine, Registry(), body)


def test_a_registry_in_trouble(engine: Dockerd) -> None:
    async def body(images: Images, registry: Registry) -> None:
        name = registry.put("web", "1", make_image())
        with pytest.raises(Retryable, match=r"can't be reached: .*503"):
            await images.ensure(name, "", MISSING, None)
        registry.fail_status = 429
        with pytest.raises(Retryable, match="wants fewer requests"):
            await images.ensure(name, "", MISSING, None)

    with_registry(engine, Registry(fail_status=503), body)


def test_an_image_for_other_machines_alone(engine: Dockerd) -> None:
    async def body(images: Images, registry: Registry) -> None:
        listed = registry.put_list("web", "1", make_image(architecture="s390x"), "s390x")
        with pytest.raises(Rejected, match="not made for this node's architecture"):
            await images.ensure(listed, "", MISSING, None)
        plain = registry.put("web", "2", make_image(architecture="s390x"))
        with pytest.raises(Rejected, match="is made for s390x; this node is amd64"):
            await images.ensure(plain, "", MISSING, None)

    with_registry(engine, Registry(), body)


def test_an_engine_that_is_away_and_one_that_dies_while_it_pulls() -> None:
    async def body(images: Images, registry: Registry) -> None:
        name = registry.put("web", "1", make_image(big(4_000_000)))
        work = asyncio.create_task(images.ensure(name, "", MISSING, None))
        await eventually(lambda: registry.sending > 0)
        own.kill(signal.SIGKILL)
        with pytest.raises(Retryable, match="the Docker engine"):
            await work
        with pytest.raises(Retryable, match="the Docker engine does not answer at unix:"):
            await images.ensure(name, "", MISSING, None)
        own.start()
        registry.bytes_per_s = None
        await images.ensure(name, "", MISSING, None)

    own = Dockerd()
    try:
        own.start()
        with_registry(own, Registry(bytes_per_s=100_000), body)
    finally:
        own.remove()


# ---------------------------------------------------------------------------- many, and giving up


def test_tasks_that_wait_for_one_image_share_one_pull(engine: Dockerd) -> None:
    image = make_image({"v": b"1"})

    async def body(images: Images, registry: Registry) -> None:
        name = registry.put("web", "1", image)
        policies = [MISSING, ALWAYS] * 5
        works = [asyncio.create_task(images.ensure(name, "", each, None)) for each in policies]
        assert {facts.id for facts in await asyncio.gather(*works)} == {image.id}
        assert registry.count(f"GET /v2/web/blobs/{image.id}") == 1
        assert registry.count("GET /v2/web/manifests/") <= 2

    with_registry(engine, Registry(), body)


def test_one_that_gives_up_leaves_the_others_their_pull(engine: Dockerd) -> None:
    async def body(images: Images, registry: Registry) -> None:
        name = registry.put("web", "1", make_image(big(2_000_000)))
        first = asyncio.create_task(images.ensure(name, "", MISSING, None))
        await eventually(lambda: registry.sending > 0)
        second = asyncio.create_task(images.ensure(name, "", MISSING, None))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).digest
        assert first.cancelled()

    with_registry(engine, Registry(bytes_per_s=4_000_000), body)


def test_a_pull_that_nobody_waits_for_ends_and_leaves_nothing_bad(engine: Dockerd) -> None:
    async def body(images: Images, registry: Registry) -> None:
        name = registry.put("web", "1", make_image(big(20_000_000)))
        work = asyncio.create_task(images.ensure(name, "", MISSING, None))
        await eventually(lambda: registry.sending > 0)
        work.cancel()
        # The engine hangs up on the registry: nothing goes on behind anybody's back.
        await eventually(lambda: registry.sending == 0)
        with pytest.raises(ApiError, match="404"):
            engine.get(f"/images/{name}/json")
        registry.bytes_per_s = None
        assert (await images.ensure(name, "", MISSING, None)).digest

    with_registry(engine, Registry(bytes_per_s=500_000), body)


def test_how_far_a_pull_is_is_reported(engine: Dockerd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images_module, "REPORT_PERIOD_S", 0.1)

    async def body(images: Images, registry: Registry) -> None:
        image = make_image(big(8_000_000))
        size = sum(len(blob) for digest, blob in image.blobs.items() if digest != image.id)
        name = registry.put("web", "1", image)
        first: list[str] = []
        late: list[str] = []
        work = asyncio.create_task(images.ensure(name, "", MISSING, None, first.append))
        await eventually(lambda: any("%" in words for words in first))
        await asyncio.gather(work, images.ensure(name, "", MISSING, None, late.append))
        assert first[0] == f"pulling {name}"
        whole = f"% of {size / 1e6:.1f} MB"
        shares = [int(words.split()[2]) for words in first if words.endswith(whole)]
        assert len(shares) > 2
        assert shares == sorted(shares), first
        # Who comes late hears at once how far it is.
        assert "%" in late[0]

    with_registry(engine, Registry(bytes_per_s=4_000_000), body)


# ---------------------------------------------------------------------------------- asking alone


@pytest.mark.parametrize("auth", ["", "basic", "token"])
def test_a_digest_is_asked_for_without_pulling(engine: Dockerd, auth: str) -> None:
    image = make_image({"v": b"1"})

    async def body(images: Images, registry: Registry) -> None:
        name = registry.put("web", "1", image)
        assert await images.resolve(name, login(registry)) == image.digest
        # For the platform that it is made for, the engine looks at its configuration.
        assert registry.count("/blobs/") == registry.count(f"/blobs/{image.id}")
        assert await images.resolve(f"{name}@{image.digest}", None) == image.digest

    with_registry(engine, Registry(auth=auth, users=dict([LOGIN])), body)


def test_the_digest_of_an_image_for_many_machines_is_its_lists(engine: Dockerd) -> None:
    image = make_image({"v": b"1"})

    async def body(images: Images, registry: Registry) -> None:
        name = registry.put_list("web", "1", image, "amd64")
        digest = await images.resolve(name, None)
        assert digest != image.digest
        facts = await images.ensure(name, digest, MISSING, None)
        assert (facts.id, facts.digest) == (image.id, digest)

    with_registry(engine, Registry(), body)


def test_why_a_digest_can_not_be_told(engine: Dockerd) -> None:
    async def body(images: Images, registry: Registry) -> None:
        name = registry.put("web", "1", make_image())
        with pytest.raises(Retryable, match="skep registry login"):
            await images.resolve(name, None)
        with pytest.raises(Rejected, match="refuses the login"):
            await images.resolve(name, login(registry, "vinegar"))
        with pytest.raises(Rejected, match="no such image"):
            await images.resolve(f"{registry.server}/web:2", login(registry))
        with pytest.raises(Retryable, match="can't be reached"):
            await images.resolve("127.0.0.1:1/web:1", None)

    with_registry(engine, Registry(auth="basic", users=dict([LOGIN])), body)


def test_a_registry_that_says_nothing_is_not_waited_for(
    engine: Dockerd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images_module, "RESOLVE_DEADLINE_S", 0.3)

    async def body(images: Images, registry: Registry) -> None:
        name = registry.put("web", "1", make_image())
        with pytest.raises(Retryable, match=r"did not answer within 0\.3 s"):
            await images.resolve(name, None)

    with_registry(engine, Registry(is_hung=True), body)
