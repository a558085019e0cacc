"""The blocking client's stacks, and what they are made of besides services.

See `skep.client.sync`.
"""

from __future__ import annotations

from collections.abc import Sequence

from skep.client import objects as o
from skep.client import storage as f
from skep.client.adapter_thread import LoopThread
from skep.domain.control import (
    DeployStackResponse,
    DiagnoseNetworkResponse,
    ListStacksResponse,
    NetworkView,
    RemoveResponse,
)
from skep.domain.filecalls import ConfigView, RegistryView, SecretView, VolumeView
from skep.domain.objects import Network, Stack
from skep.domain.spec import NetworkSpec, StackSpec
from skep.domain.storage import ConfigSpec, SecretSpec


class Stacks:
    """Named sets of services, deployed as one."""

    def __init__(self, inner: o.Stacks, loop: LoopThread) -> None:
        self._inner = inner
        self._loop = loop

    def get(self, ref: str, *, is_stale: bool = False) -> Stack:
        """One stack. Raises NotFound."""
        return self._loop.run(self._inner.get(ref, is_stale=is_stale))

    def list(self, *, is_stale: bool = False) -> tuple[Stack, ...]:
        """All stacks, by name."""
        return self._loop.run(self._inner.list(is_stale=is_stale))

    def snapshot(self, *, is_stale: bool = False) -> ListStacksResponse:
        """All stacks with the version they were read at."""
        return self._loop.run(self._inner.snapshot(is_stale=is_stale))

    def deploy(
        self,
        spec: StackSpec,
        *,
        configs: Sequence[ConfigSpec] = (),
        secrets: Sequence[SecretSpec] = (),
        is_prune: bool = False,
    ) -> DeployStackResponse:
        """Make the cluster hold this stack, all of it or nothing. Services that the stack no
        longer names stay, and are named in the answer, unless `is_prune`. Raises
        InvalidArgument, AlreadyExists (a published port or a name that is another's).

        The stack's own `configs` and `secrets` are written first. Where the stack had another
        content under a name before, a new one is made beside it, and the services that use that
        name are given the new one: the answer's stack says the names."""
        return self._loop.run(
            self._inner.deploy(spec, configs=configs, secrets=secrets, is_prune=is_prune)
        )

    def remove(self, ref: str) -> RemoveResponse:
        """Remove the stack and, once their tasks have ended, its services. Raises NotFound."""
        return self._loop.run(self._inner.remove(ref))


class Networks:
    """What tasks are connected by, and kept apart by."""

    def __init__(self, inner: o.Networks, loop: LoopThread) -> None:
        self._inner = inner
        self._loop = loop

    def get(self, ref: str, *, is_stale: bool = False) -> NetworkView:
        """One network, and who is on it. Raises NotFound."""
        return self._loop.run(self._inner.get(ref, is_stale=is_stale))

    def list(self, *, stack: str | None = None, is_stale: bool = False) -> tuple[NetworkView, ...]:
        """All networks, or those of one stack, by name. Raises NotFound for an unknown stack."""
        return self._loop.run(self._inner.list(stack=stack, is_stale=is_stale))

    def create(self, spec: NetworkSpec) -> Network:
        """A new network. Raises AlreadyExists, InvalidArgument."""
        return self._loop.run(self._inner.create(spec))

    def remove(self, ref: str) -> RemoveResponse:
        """Remove a network that no service uses. Raises NotFound, FailedPrecondition."""
        return self._loop.run(self._inner.remove(ref))

    def diagnose(self, name: str = "", from_task: str = "") -> DiagnoseNetworkResponse:
        """How every node's netproxy sees the network; or, with both arguments, what `name` leads
        to for the task `from_task`. Raises NotFound for an unknown task."""
        return self._loop.run(self._inner.diagnose(name, from_task))


class Configs:
    """Bytes that everybody may read, and that never change."""

    def __init__(self, inner: f.Configs, loop: LoopThread) -> None:
        self._inner = inner
        self._loop = loop

    def get(self, ref: str, *, is_stale: bool = False) -> ConfigView:
        """One config with its data, and who uses it. Raises NotFound."""
        return self._loop.run(self._inner.get(ref, is_stale=is_stale))

    def list(self, *, stack: str | None = None, is_stale: bool = False) -> tuple[ConfigView, ...]:
        """All configs, or those of one stack, by name, without their data. Raises NotFound for an
        unknown stack."""
        return self._loop.run(self._inner.list(stack=stack, is_stale=is_stale))

    def create(
        self, spec: ConfigSpec, *, stack: str = "", is_versioned: bool = False
    ) -> ConfigView:
        """A new config; or, with `is_versioned`, one of the stack's family of that name that has
        the same data, whatever its own name. Raises AlreadyExists, InvalidArgument."""
        return self._loop.run(self._inner.create(spec, stack=stack, is_versioned=is_versioned))

    def remove(self, ref: str) -> RemoveResponse:
        """Remove a config that no service uses. Raises NotFound, Refused."""
        return self._loop.run(self._inner.remove(ref))


class Secrets:
    """Bytes that nobody but the tasks that use them is ever shown, and that never change."""

    def __init__(self, inner: f.Secrets, loop: LoopThread) -> None:
        self._inner = inner
        self._loop = loop

    def get(self, ref: str, *, is_stale: bool = False) -> SecretView:
        """What may be shown of one secret, and who uses it. Raises NotFound."""
        return self._loop.run(self._inner.get(ref, is_stale=is_stale))

    def list(self, *, stack: str | None = None, is_stale: bool = False) -> tuple[SecretView, ...]:
        """All secrets, or those of one stack, by name. Raises NotFound for an unknown stack."""
        return self._loop.run(self._inner.list(stack=stack, is_stale=is_stale))

    def create(
        self, spec: SecretSpec, *, stack: str = "", is_versioned: bool = False
    ) -> SecretView:
        """A new secret; or, with `is_versioned`, one of the stack's family of that name that has
        the same data, whatever its own name. Raises AlreadyExists, InvalidArgument."""
        return self._loop.run(self._inner.create(spec, stack=stack, is_versioned=is_versioned))

    def remove(self, ref: str) -> RemoveResponse:
        """Remove a secret that no service uses. Raises NotFound, Refused."""
        return self._loop.run(self._inner.remove(ref))


class Registries:
    """How nodes log in to registries of images."""

    def __init__(self, inner: f.Registries, loop: LoopThread) -> None:
        self._inner = inner
        self._loop = loop

    def list(self, *, is_stale: bool = False) -> tuple[RegistryView, ...]:
        """All registries that there is a login to, by name."""
        return self._loop.run(self._inner.list(is_stale=is_stale))

    def login(self, name: str, username: str, password: str) -> RegistryView:
        """Have nodes log in to a registry with these words from now on, in place of others.
        Whether the registry takes them shows when a node asks it. Raises InvalidArgument."""
        return self._loop.run(self._inner.login(name, username, password))

    def logout(self, name: str) -> RemoveResponse:
        """Forget how to log in to a registry. Raises NotFound."""
        return self._loop.run(self._inner.logout(name))


class Volumes:
    """Named volumes that live on single nodes, as far as managers know of them."""

    def __init__(self, inner: f.Volumes, loop: LoopThread) -> None:
        self._inner = inner
        self._loop = loop

    def get(self, ref: str, *, is_stale: bool = False) -> VolumeView:
        """One volume, where it is, and who uses it. Raises NotFound."""
        return self._loop.run(self._inner.get(ref, is_stale=is_stale))

    def list(self, *, is_stale: bool = False) -> tuple[VolumeView, ...]:
        """All volumes, by name."""
        return self._loop.run(self._inner.list(is_stale=is_stale))

    def remove(self, ref: str) -> RemoveResponse:
        """Forget where a volume that no service uses was; what is in it stays there. Raises
        NotFound, Refused."""
        return self._loop.run(self._inner.remove(ref))
