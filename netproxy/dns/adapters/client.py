"""The control process's side: find or start the DNS process, and keep it as it should be.

What is wanted is given as a whole (`apply`), as often as it changes; what is said to the process is
the difference to what it has. A process that is found, or started anew, is told everything once. It
keeps what is right already: sockets that it has stay open, names that it knows stay known.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Iterable
from pathlib import Path

from skep.env import Env, Rejected, Retryable
from skep.netproxy.dns.adapters.link import Link, Silent
from skep.netproxy.dns.core import protocol
from skep.netproxy.dns.core.protocol import (
    Applied,
    Ask,
    GetStatus,
    Listen,
    ScopeError,
    SetNetworks,
    SetScopes,
    Status,
    Told,
)
from skep.netproxy.dns.core.zones import NetworkZone, check, check_scope

log = logging.getLogger(__name__)

MODULE = "skep.netproxy.dns.main"
IN_USE = 3  # its exit status while another process, which may just be ending, holds the folder
# A start takes 0.2 s on a quiet machine.
START_DEADLINE_S = 20.0
END_DEADLINE_S = 5.0
START_PAUSE_S = 0.05
# What could not be bound (an address that is not there yet, or taken) is tried again this often.
RETRY_S = 1.0
FIRST_BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 5.0
# What the kernel has room for in a unix socket's address, less the zero at its end.
PATH_LIMIT_BYTES = 107


class DnsClient:
    """The DNS process of one node, whose control socket is at `path`.

    `state_dir` is its folder (lock, log), beside the socket unless given. `start` alone changes
    nothing of what a process that is found answers; the first `apply` does.
    """

    def __init__(
        self,
        env: Env,
        path: Path,
        *,
        state_dir: Path | None = None,
        resolv_conf: Path = Path("/etc/resolv.conf"),
    ) -> None:
        """Raises Rejected."""
        if len(str(path.absolute()).encode()) > PATH_LIMIT_BYTES:
            raise Rejected(f"{path}: a socket's path has at most {PATH_LIMIT_BYTES} bytes")
        self._env = env
        self._path = path.absolute()
        self._state_dir = (state_dir or path.parent / "dns").absolute()
        self._resolv_conf = resolv_conf.absolute()
        self._link: Link | None = None
        self._one_at_a_time = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None
        self._version = 0
        self._zones: dict[str, NetworkZone] | None = None  # what is wanted; None: nothing said yet
        self._scopes: dict[str, Listen] = {}
        self._told_zones: dict[str, NetworkZone] | None = None  # None: the process is new to us
        self._told_scopes: dict[str, Listen] = {}
        self.errors: tuple[ScopeError, ...] = ()

    async def start(self) -> None:
        """Find the process, or start it, and watch over it from now on. Raises Retryable."""
        async with self._one_at_a_time:
            await self._connected()
        if self._keeper is None:
            self._keeper = self._env.spawn("dns keeper", self._keep())

    async def apply(
        self, zones: Iterable[NetworkZone], scopes: Iterable[Listen]
    ) -> tuple[ScopeError, ...]:
        """Make this the whole of what is answered; returns what can't be (it is tried again).

        Raises Rejected where it makes no sense, and then changes nothing; Retryable where the
        process could not be told, which then happens as soon as it can.
        """
        zones, scopes = tuple(zones), tuple(scopes)
        wanted_zones = {zone.network_id: zone for zone in zones}
        wanted_scopes = {listen.scope.scope_id: listen for listen in scopes}
        if len(wanted_zones) != len(zones) or len(wanted_scopes) != len(scopes):
            raise Rejected("two networks, or two scopes, have one id")
        try:
            for zone in zones:
                checked = (self._zones or {}).get(zone.network_id)
                if checked is not zone:
                    check(zone, checked)
            for listen in scopes:
                check_scope(listen.scope)
        except ValueError as error:
            raise Rejected(str(error)) from None
        self._zones, self._scopes = wanted_zones, wanted_scopes
        self._version += 1
        await self._tell()
        return self.errors

    async def ask(self, scope_id: str, name: str) -> Told:
        """What that scope would be told of a name. Raises Retryable; Rejected: no such scope."""
        async with self._one_at_a_time:
            link = await self._connected()
            if scope_id not in self._told_scopes:
                raise Rejected(f"there is no scope {scope_id!r}")
            return await link.ask(Ask(scope_id=scope_id, name=name), Told)

    async def status(self) -> Status:
        """What the process holds. Raises Retryable."""
        async with self._one_at_a_time:
            return await (await self._connected()).ask(GetStatus(), Status)

    async def close(self, *, leave: bool = True) -> None:
        """Let go. `leave`: the process goes on answering; else it ends. Raises Retryable."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait((self._keeper,))
            self._keeper = None
        if self._link is not None:
            link, self._link = self._link, None
            if leave:
                await link.close()
            else:
                await link.end_process(END_DEADLINE_S)

    async def end(self) -> bool:
        """End the process, if there is one; whether there was. Raises Retryable."""
        async with self._one_at_a_time:
            link = await self._find()
            if link is None:
                return False
            await link.end_process(END_DEADLINE_S)
            return True

    # ------------------------------------------------------------------------------- telling

    async def _tell(self) -> None:
        async with self._one_at_a_time:
            link = await self._connected()
            zones, scopes, version = self._zones, self._scopes, self._version
            if zones is None:
                return
            told_zones, told_scopes = self._told_zones, self._told_scopes
            is_whole = told_zones is None
            # Until everything is answered, nobody knows what the process has.
            self._told_zones, self._told_scopes = None, {}
            changed, removed = protocol.network_changes(told_zones or {}, zones)
            if is_whole or changed or removed:
                request = SetNetworks(
                    version=version, changed=changed, removed=removed, is_whole=is_whole
                )
                await link.ask(request, Applied)
            listen, unlisten = protocol.scope_changes(told_scopes, scopes)
            if is_whole or listen or unlisten:
                wanted = SetScopes(listen=listen, unlisten=unlisten, is_whole=is_whole)
                self._note_errors((await link.ask(wanted, Applied)).errors)
            # Nobody waits any more for a scope that is not wanted.
            self._note_errors(tuple(each for each in self.errors if each.scope_id in scopes))
            self._told_zones = zones
            # Those that failed count as not told, so that the next telling names them again.
            failed = {error.scope_id for error in self.errors}
            self._told_scopes = {key: at for key, at in scopes.items() if key not in failed}

    def _note_errors(self, errors: tuple[ScopeError, ...]) -> None:
        if errors != self.errors:
            for error in errors:
                log.warning("scope=%s dns=failed why=%r", error.scope_id, error.why)
        self.errors = errors

    async def _keep(self) -> None:
        """Tell again whenever the process is gone, or something could not be bound."""
        backoff_s = FIRST_BACKOFF_S
        while True:
            if self._link is not None:
                with contextlib.suppress(TimeoutError):
                    await self._env.clock.within(RETRY_S, self._link.lost.wait())
                if not self._link_is_lost() and not self.errors:
                    continue
            try:
                await self._tell()
                backoff_s = FIRST_BACKOFF_S
            except Retryable as error:
                log.warning("dns=%s state=unreachable why=%r", self._path, str(error))
                await self._env.clock.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, LONGEST_BACKOFF_S)

    def _link_is_lost(self) -> bool:
        return self._link is None or self._link.lost.is_set()

    # ---------------------------------------------------------------------- finding, starting

    async def _connected(self) -> Link:
        """A link to a process of our format. Raises Retryable."""
        if self._link is not None and not self._link.lost.is_set():
            return self._link
        if self._link is not None:
            await self._link.close()
            self._link = None
        self._told_zones, self._told_scopes = None, {}
        give_up_at = self._env.now() + START_DEADLINE_S
        while (link := await self._find()) is None:
            if self._env.now() > give_up_at:
                raise Retryable(f"{self._state_dir} is held by a process that can't be reached")
            if not await self._started():
                await self._env.clock.sleep(START_PAUSE_S)
        self._link = link
        return link

    async def _find(self) -> Link | None:
        """A link to a process that is there and understands us. Raises Retryable."""
        try:
            link = await Link.open(self._env, self._path)
        except OSError:
            return None
        try:
            welcome = await link.hello()
        except Silent as error:
            log.warning("dns=%s pid=%d state=killed why=%r", self._path, link.pid, str(error))
            link.kill_process()
            return None
        except Retryable:
            await link.close()
            return None
        if welcome.format == protocol.FORMAT:
            log.info("dns=%s pid=%d state=found", self._path, welcome.pid)
            return link
        log.info("dns=%s pid=%d state=ending format=%d", self._path, welcome.pid, welcome.format)
        await link.end_process(END_DEADLINE_S)
        return None

    async def _started(self) -> bool:
        """Start the process; False where one holds the folder. Raises Retryable."""
        process = await asyncio.create_subprocess_exec(
            # -P: a folder called "skep" where we were started is not ours.
            *(sys.executable, "-P", "-m", MODULE, "--detach"),
            *("--control", str(self._path), "--state-dir", str(self._state_dir)),
            *("--resolv-conf", str(self._resolv_conf)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            _, said = await self._env.clock.within(START_DEADLINE_S, process.communicate())
        except TimeoutError:
            raise Retryable(f"the DNS process did not start in {START_DEADLINE_S:g} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode == IN_USE:
            return False
        if process.returncode != 0:
            raise Retryable(f"the DNS process did not start: {said.decode(errors='replace')}")
        return True
