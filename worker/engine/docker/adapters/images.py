"""Images of this node: looking at them, pulling them, and asking their registries.

All tasks that wait for one image wait for one pull. A pull ends with the last task that waits for
it: the engine then drops what it has half loaded.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
from dataclasses import dataclass, field
from typing import Protocol

import aiodocker
import msgspec

from skep.domain.base import Pairs, replace
from skep.domain.container import PullPolicy
from skep.domain.imagename import DOCKER_HUB, ImageName, parse_image
from skep.domain.session import GivenLogin
from skep.env import Env, Rejected, Retryable
from skep.worker.engine.docker.adapters.request import Request, ask, read
from skep.worker.engine.docker.core.image import ImageFacts, facts_of, runs_on
from skep.worker.engine.docker.core.pull import (
    Choice,
    DiskFull,
    Progress,
    choose,
    failure,
    read_line,
)
from skep.worker.engine.protocol import Report, unheard

log = logging.getLogger(__name__)

# Engines say something each second of a download, and retry what breaks off. Reading back a layer
# of many gigabytes to check it takes a while without a word.
PULL_SILENCE_S = 180.0
# Whoever deploys waits for this answer, and does without it.
RESOLVE_DEADLINE_S = 3.0
# Each report is a commit of the cluster's database.
REPORT_PERIOD_S = 3.0
_HUB_LOGIN = "https://index.docker.io/v1/"
_HANDLERS = "/proc/sys/fs/binfmt_misc"


class Keeper(Protocol):
    """Who removes images that aren't used any more; see the module `cleanup`."""

    async def local_ids(self) -> set[str]:
        """The images that there are now."""
        ...

    async def note_pulled(self, facts: ImageFacts) -> None:
        """This image wasn't there, and came by a pull of ours."""
        ...

    async def take(self, image_id: str) -> bool:
        """A task is about to use this image. False: it has just been removed."""
        ...

    def disk_is_full(self) -> None:
        """A pull has found no space."""
        ...


@dataclass
class _Pull:
    """One pull under way, who waits for it, and who hears of it."""

    work: asyncio.Task[ImageFacts]
    waiting: int = 0
    reports: list[Report] = field(default_factory=list)
    words: str = ""


class Images:
    """See the module. Without a `keeper`, nobody notes what was pulled."""

    def __init__(self, docker: aiodocker.Docker, env: Env, keeper: Keeper | None = None) -> None:
        self._docker = docker
        self._env = env
        self._keeper = keeper
        self._pulls: dict[ImageName, _Pull] = {}
        self._architecture = ""

    async def ensure(
        self,
        image: str,
        digest: str,
        policy: PullPolicy,
        login: GivenLogin | None,
        report: Report = unheard,
    ) -> ImageFacts:
        """Have an image, by `digest` where one is known, and say what it is. Raises Rejected for
        what isn't to be had on this node, Retryable for what may be later."""
        name = parse_image(image)
        if digest:
            name = replace(name, digest=digest)
        facts = await self._take(name)
        match choose(policy, is_here=facts is not None, is_pinned=bool(name.digest)):
            case Choice.REFUSE:
                raise Rejected(
                    f'image "{name.familiar}" is not on this node, and its pull policy is "never"'
                )
            case Choice.PULL:
                facts = await self._shared_pull(name, login, report)
        assert facts is not None
        await self._check_architecture(facts)
        return facts

    async def _take(self, name: ImageName) -> ImageFacts | None:
        """What there is under a name, from now on in use."""
        facts = await self.find(name)
        is_there = facts is None or self._keeper is None or await self._keeper.take(facts.id)
        return facts if is_there else await self.find(name)

    async def find(self, name: ImageName) -> ImageFacts | None:
        """What this node has under a name; one with a digest means that very content, and its tag
        is nobody's business then. Raises Retryable."""
        wanted = replace(name, tag="") if name.digest else name
        try:
            return facts_of(await read(self._docker, f"images/{wanted.text}/json"), name)
        except aiodocker.DockerError as error:
            if error.status == 404:
                return None
            raise Retryable(f'image "{name.familiar}": {error.message}') from error
        except msgspec.DecodeError as error:
            raise Retryable(f'image "{name.familiar}": the engine answers: {error}') from error

    async def resolve(self, image: str, login: GivenLogin | None) -> str:
        """See `skep.worker.engine.protocol.ImageResolver`."""
        name = parse_image(image)
        if name.digest:
            return name.digest
        try:
            return await self._env.clock.within(RESOLVE_DEADLINE_S, self._ask_digest(name, login))
        except TimeoutError:
            raise Retryable(
                f'image "{name.familiar}": registry {name.server} did not answer within '
                f"{RESOLVE_DEADLINE_S:g} s"
            ) from None

    async def close(self) -> None:
        """Give up what is being pulled."""
        works = [pull.work for pull in self._pulls.values()]
        for work in works:
            work.cancel()
        if works:
            await asyncio.wait(works)

    async def _ask_digest(self, name: ImageName, login: GivenLogin | None) -> str:
        request = Request(f"distribution/{name.text}/json", headers=_login_header(login))
        try:
            async with ask(self._docker, request) as response:
                answer = msgspec.json.decode(await response.read(), type=_Distribution)
                return answer.descriptor.digest
        except aiodocker.DockerError as error:
            raise failure(error.message, name, login) from error
        except msgspec.DecodeError as error:
            raise Retryable(f'image "{name.familiar}": the engine answers: {error}') from error

    async def _shared_pull(
        self, name: ImageName, login: GivenLogin | None, report: Report
    ) -> ImageFacts:
        pull = self._pulls.get(name)
        if pull is None or pull.work.done():
            work = self._env.spawn(f"pull/{name.familiar}", self._pull(name, login))
            work.add_done_callback(_looked_at)
            pull = self._pulls[name] = _Pull(work)
        pull.waiting += 1
        pull.reports.append(report)
        if pull.words:
            report(pull.words)
        try:
            return await asyncio.shield(pull.work)
        finally:
            pull.waiting -= 1
            pull.reports.remove(report)
            if not pull.waiting:
                # Whoever comes from now on begins anew: this one may be on its way out.
                if self._pulls.get(name) is pull:
                    del self._pulls[name]
                pull.work.cancel()

    async def _pull(self, name: ImageName, login: GivenLogin | None) -> ImageFacts:
        log.info("image=%s pull=begun login=%s", name.familiar, "yes" if login else "no")
        self._tell(name, Progress(name.familiar).words)
        before = await self._keeper.local_ids() if self._keeper else set()
        try:
            await self._load(name, login)
        except DiskFull:
            if self._keeper is not None:
                self._keeper.disk_is_full()
            raise
        facts = await self.find(name)
        if facts is None:
            raise Retryable(f'image "{name.familiar}" was pulled, and is gone again')
        if self._keeper is not None and facts.id not in before:
            await self._keeper.note_pulled(facts)
        log.info("image=%s pull=done id=%s", name.familiar, facts.id)
        return facts

    async def _load(self, name: ImageName, login: GivenLogin | None) -> None:
        progress = Progress(name.familiar)
        next_report = self._env.now() + REPORT_PERIOD_S
        request = Request(
            "images/create",
            "POST",
            params=(("fromImage", name.name), ("tag", name.digest or name.tag)),
            headers=_login_header(login),
            silence_s=PULL_SILENCE_S,
        )
        try:
            async with ask(self._docker, request) as response:
                async for text in response.content:
                    try:
                        line = read_line(text)
                    except msgspec.DecodeError:
                        continue  # An empty line, or one of a kind that nobody has heard of.
                    if line.error:
                        raise failure(line.error, name, login)
                    progress.take(line)
                    if self._env.now() >= next_report:
                        next_report = self._env.now() + REPORT_PERIOD_S
                        self._tell(name, progress.words)
        except aiodocker.DockerError as error:
            raise failure(error.message, name, login) from error

    def _tell(self, name: ImageName, words: str) -> None:
        pull = self._pulls.get(name)
        if pull is None or pull.words == words:
            return
        pull.words = words
        for report in pull.reports:
            report(words)

    async def _check_architecture(self, facts: ImageFacts) -> None:
        if not self._architecture:
            version = await read(self._docker, "version")
            self._architecture = msgspec.json.decode(version, type=_Version).arch
        if not runs_on(facts.architecture, self._architecture, _handlers()):
            raise Rejected(
                f'image "{facts.reference}" is made for {facts.architecture}; this node is '
                f"{self._architecture}"
            )


class _Descriptor(msgspec.Struct, frozen=True):
    digest: str


class _Distribution(msgspec.Struct, frozen=True):
    descriptor: _Descriptor = msgspec.field(name="Descriptor")


class _Version(msgspec.Struct, frozen=True):
    arch: str = msgspec.field(name="Arch", default="")


def _login_header(login: GivenLogin | None) -> Pairs:
    """As the engine wants it; with none, it asks the registry as nobody."""
    words = {}
    if login is not None:
        server = _HUB_LOGIN if login.server == DOCKER_HUB else login.server
        words = {
            "username": login.username,
            "password": login.password,
            "serveraddress": server,
        }
    encoded = base64.urlsafe_b64encode(msgspec.json.encode(words)).decode()
    return (("X-Registry-Auth", encoded),)


def _looked_at(work: asyncio.Task[ImageFacts]) -> None:
    """Those who waited may all be gone; that it failed is then nobody's business."""
    if not work.cancelled():
        work.exception()


def _handlers() -> list[str]:
    """Interpreters that this node has for other machines' programs."""
    try:
        return os.listdir(_HANDLERS)
    except OSError:
        return []
