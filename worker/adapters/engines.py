"""The engines of a node: the process engine, and Docker's where the node has one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from skep.domain.base import Struct
from skep.domain.spec import ENGINES, PROCESS
from skep.env import Env
from skep.worker.agent import Equipment
from skep.worker.engine.adapters.process import ProcessEngine
from skep.worker.engine.docker.core.cleanup import CleanupPolicy
from skep.worker.engine.docker.core.create import Owner
from skep.worker.engine.docker.core.notes import DockerNotes
from skep.worker.engine.network import TaskNetwork
from skep.worker.engine.protocol import Engine
from skep.worker.supplies import Supplies

if TYPE_CHECKING:
    from skep.worker.engine.docker.adapters.docker import DockerEngine


class EngineSettings(Struct, frozen=True, kw_only=True):
    """What engines are made of. `netproxy` and `docker` are addresses, "" where there is none;
    `containers` is the folder of the Docker engine's own files. Without `cleanup` no images are
    removed."""

    node_id: str
    cluster_id: str
    tasks: str
    containers: str = ""
    netproxy: str = ""
    plane: str = "relay"
    docker: str = ""
    cleanup: CleanupPolicy | None = None


class Engines:
    """All engines of one node, and what they share. Must be made on a loop."""

    def __init__(self, env: Env, settings: EngineSettings) -> None:
        self._env = env
        names = ENGINES if settings.docker else (PROCESS,)
        network = TaskNetwork(env, settings.netproxy, settings.plane, names)
        supplies = Supplies()
        self.process = ProcessEngine(Path(settings.tasks), env, settings.node_id, network)
        self.docker = _docker(env, settings, network, supplies) if settings.docker else None
        engines: dict[str, Engine] = {self.process.name: self.process}
        if self.docker is not None:
            engines[self.docker.name] = self.docker
        resolver = None if self.docker is None else self.docker.images
        self.equipment = Equipment(engines, supplies, resolver)

    async def docker_notes(self) -> DockerNotes:
        """What is to be said of the Docker engine now."""
        if self.docker is None:
            return DockerNotes()
        from skep.worker.adapters.dockernotes import docker_notes

        return await docker_notes(self.docker)

    async def follow_docker(
        self, told: DockerNotes, on_news: Callable[[DockerNotes], None]
    ) -> None:
        """Say what is no longer as it was `told`."""
        if self.docker is not None:
            from skep.worker.adapters.dockernotes import follow_docker

            await follow_docker(self._env, self.docker, told, on_news)

    async def close(self) -> None:
        """Let go of everything; running tasks go on."""
        if self.docker is not None:
            await self.docker.close()
        await self.process.close()


def _docker(
    env: Env, settings: EngineSettings, network: TaskNetwork, supplies: Supplies
) -> DockerEngine:
    # Its client takes 15 MB, which a node without containers has better uses for.
    from skep.worker.engine.docker.adapters.api import Api
    from skep.worker.engine.docker.adapters.docker import DockerEngine, Setting
    from skep.worker.engine.docker.adapters.files import Places

    folder = Path(settings.containers or Path(settings.tasks).parent / "containers")
    owner = Owner(settings.node_id, settings.cluster_id)
    places = Places(folder, settings.node_id)
    setting = Setting(owner, places, network, supplies, settings.cleanup)
    return DockerEngine(env, Api(env, settings.docker), setting)
