"""The WireGuard device of a node, made by the kernel or, where it has none, by wireguard-go.

The device is in a namespace of its own, the node's tunnel, and what it sends leaves from the node's
own namespace, where it was made. The VXLAN devices of encrypted networks, all of them, were made in
the tunnel, and send and hear there: nothing else leads out of it, and nothing else leads in.
Whatever becomes of WireGuard, none of it is in the clear.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import shutil
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from skep.domain.base import Pairs
from skep.domain.notes import ENCRYPTION_NOTE, NO_ENCRYPTION, WIREGUARD_KEY_NOTE
from skep.env import Env
from skep.netproxy.kernel.adapters import messages, netns, wireguard_netlink
from skep.netproxy.kernel.adapters.netlink import Netlink
from skep.netproxy.kernel.adapters.sandbox import Sandbox
from skep.netproxy.kernel.adapters.wireguard_go import PROGRAM, ProgramDriver, Unanswered
from skep.netproxy.kernel.core import tunnel as core
from skep.netproxy.kernel.core.keys import KEY_BYTES, clamped, parse_key, public_key, text_of
from skep.netproxy.kernel.core.names import WIREGUARD, interface_name, tag
from skep.netproxy.kernel.core.tunnel import Change, Device, Tunnel

log = logging.getLogger(__name__)

KEY_FILE = "wireguard-key"
TUN = Path("/dev/net/tun")
_TUNSETIFF, _IFF_TUN = 0x400454CA, 0x1


class Driver(Protocol):
    """What makes a device in the tunnel, which is there, and speaks with it. All of this blocks, on
    the sandbox's thread, and raises OSError."""

    means: str
    kind: str
    """What the kernel calls its devices."""

    def make(self, sandbox: Sandbox, name: str) -> None:
        """Make it; it is not up yet."""
        ...

    def tell(self, sandbox: Sandbox, name: str, step: Change) -> None:
        """Change it. Raises Unanswered where it must be made anew."""
        ...

    def read(self, sandbox: Sandbox, name: str) -> Device:
        """How it is. Raises Unanswered where it must be made anew."""
        ...

    def end(self, name: str) -> None:
        """See that nothing is left of one that has been removed."""
        ...


class KernelDriver:
    """The kernel's WireGuard."""

    means, kind = "the kernel", "wireguard"

    def make(self, sandbox: Sandbox, name: str) -> None:
        """See `Driver.make`."""
        with netns.opened(sandbox.place.tunnel) as fd:
            sandbox.host.ask([messages.make_wireguard(name, fd)])

    def tell(self, sandbox: Sandbox, name: str, step: Change) -> None:
        """See `Driver.tell`."""
        port = sandbox.place.wireguard_port
        netns.inside(sandbox.place.tunnel, lambda: wireguard_netlink.tell(name, step, port))

    def read(self, sandbox: Sandbox, name: str) -> Device:
        """See `Driver.read`."""
        return netns.inside(sandbox.place.tunnel, lambda: wireguard_netlink.read(name))

    def end(self, name: str) -> None:
        """See `Driver.end`: nothing ever is."""


@dataclass(frozen=True)
class Encryption:
    """How a node encrypts: by a driver, with its private key; or why it can't."""

    driver: Driver | None = None
    private_key: bytes = field(default=b"", repr=False)
    hindrance: str = "it was not tried"

    @property
    def public_key(self) -> bytes | None:
        """The key that the other nodes must know."""
        return public_key(self.private_key) if self.driver is not None else None

    @property
    def note(self) -> str:
        """What a person is told."""
        if self.driver is None:
            return f"{NO_ENCRYPTION}: {self.hindrance}"
        return f"wireguard by {self.driver.means}"

    def notes(self) -> Pairs:
        """What the node says of it."""
        key = self.public_key
        keys = () if key is None else ((WIREGUARD_KEY_NOTE, text_of(key)),)
        return ((ENCRYPTION_NOTE, self.note), *keys)


async def prepared(env: Env) -> Encryption:
    """What this machine can do, found by trying; with the key that is in the state folder, where
    it is put the first time. Raises OSError."""
    driver, hindrance = await asyncio.get_running_loop().run_in_executor(None, tried)
    if driver is None:
        return Encryption(hindrance=hindrance)
    saved = env.disk.read(KEY_FILE)
    private_key = parse_key(saved.decode(errors="replace").strip()) if saved is not None else None
    if private_key is None:
        if saved is not None:
            log.error("key=unreadable file=%s", KEY_FILE)
        # Of the dice themselves, which are the kernel's: a stream forked from them is no secret.
        private_key = env.dice.randbytes(KEY_BYTES)
        await env.disk.replace(KEY_FILE, text_of(private_key).encode())
    return Encryption(driver, clamped(private_key))


def tried() -> tuple[Driver | None, str]:
    """What there is on this machine; or None and why not. Blocks for some milliseconds."""
    try:
        netns.in_thread(_make_in_new)
        return KernelDriver(), ""
    except OSError as error:
        if error.errno == errno.EPERM:
            return None, "that needs root"
    lacks = "the kernel has no WireGuard, and"
    if shutil.which(PROGRAM) is None:
        way = f"apt-get install {PROGRAM}, and start again"
        return None, f"{lacks} the program {PROGRAM} isn't installed; {way}"
    try:
        netns.in_thread(_open_in_new)
    except OSError as error:
        return None, f"{lacks} {PROGRAM} has no use of {TUN} ({error.strerror})"
    return ProgramDriver(), ""


def _make_in_new() -> None:
    netns.enter_new()
    netlink = Netlink()
    try:
        netlink.ask([messages.make_wireguard("probe")])
    finally:
        netlink.close()


def _open_in_new() -> None:
    netns.enter_new()
    fd = os.open(TUN, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", b"probe", _IFF_TUN))
    finally:
        os.close(fd)


class WireGuard:
    """A node's device. All of this blocks, and belongs to the sandbox's thread."""

    def __init__(self, sandbox: Sandbox, driver: Driver, private_key: bytes) -> None:
        self._sandbox = sandbox
        self._driver = driver
        self._private_key = private_key
        self._name = interface_name(WIREGUARD, sandbox.place.node)
        # What it was last told: None where nobody knows, or nothing.
        self._told: Tunnel | None = None
        self._is_gone = False

    def ensure(self, wanted: Tunnel) -> None:
        """Have the device as wanted. Raises OSError."""
        self._is_gone = False
        if self._is_up() and self._told == wanted:
            return
        self._told = None
        netlink = self._sandbox.ensure_tunnel()
        link = messages.link_named(netlink, self._name)
        if link is None or link.kind != self._driver.kind:
            self._make()
        # First its keys: once it is up, it does what it is told.
        try:
            self._tell(wanted)
        except Unanswered as error:
            log.warning("wireguard=%s state=unanswered why=%r", self._name, str(error))
            self._make()
            self._tell(wanted)
        index = messages.index_named(netlink, self._name)
        asked = []
        for other in self._addresses(netlink, index):
            if other != _address(wanted):
                # First: the kernel drops with it what has come after it in the same subnet.
                address, _, prefix_length = other.partition("/")
                asked.append(messages.drop_address(index, address, int(prefix_length)))
        asked.append(messages.set_address(index, wanted.address, wanted.prefix_length))
        alias = tag(self._sandbox.place.node, wireguard=self._driver.means.replace(" ", "-"))
        asked.append(messages.set_up(index, mtu=self._sandbox.underlay.tunnel_mtu, alias=alias))
        netlink.ask(asked)
        self._told = wanted

    def remove(self) -> None:
        """Have none. Raises OSError."""
        if self._is_gone:
            return
        self._told = None
        self._drop()
        self._is_gone = True

    def differences(self, wanted: Tunnel) -> list[str]:
        """In which ways it isn't as wanted, for a person; the next `ensure` puts them right.
        Raises OSError."""
        netlink = self._sandbox.tunnel
        index = 0 if netlink is None else messages.index_named(netlink, self._name)
        if netlink is None or not index:
            texts = ["WireGuard: its device is gone"]
        else:
            try:
                found = self._driver.read(self._sandbox, self._name)
                texts = list(core.differences(self._device(wanted), found))
            except (OSError, ValueError) as error:
                texts = [f"WireGuard: {self._name} does not answer: {error}"]
            if not self._is_up() or _address(wanted) not in self._addresses(netlink, index):
                mtu = self._sandbox.underlay.tunnel_mtu
                texts.append(
                    f"WireGuard: {self._name} should be up with MTU {mtu} and address "
                    f"{wanted.address}"
                )
        if texts:
            self._told = None
        return texts

    def _make(self) -> None:
        """Make it, in place of whatever there is of it; what can't be finished is dropped."""
        self._drop()
        try:
            self._driver.make(self._sandbox, self._name)
        except OSError:
            with contextlib.suppress(OSError):  # the next attempt, or `remove`, tries it again
                self._drop()
            raise
        log.info("wireguard=%s state=made by=%s", self._name, self._driver.means)

    def _drop(self) -> None:
        """Wherever it is: in the node's own namespace while it is not finished, and in the sandbox
        where an earlier release has made it."""
        sandbox = self._sandbox
        for netlink in (sandbox.tunnel, sandbox.host, sandbox.netlink):
            if netlink is not None and (index := messages.index_named(netlink, self._name)):
                netlink.ask([messages.drop_link(index)], but_for=(errno.ENODEV,))
        self._driver.end(self._name)

    def _tell(self, wanted: Tunnel) -> None:
        found = self._driver.read(self._sandbox, self._name)
        step = core.change(self._device(wanted), found)
        if step != Change():
            self._driver.tell(self._sandbox, self._name, step)

    def _device(self, wanted: Tunnel) -> Device:
        return Device(self._private_key, self._sandbox.place.wireguard_port, wanted.peers)

    def _is_up(self) -> bool:
        if (netlink := self._sandbox.tunnel) is None:
            return False
        link = messages.link_named(netlink, self._name)
        return link is not None and link.is_up and link.mtu == self._sandbox.underlay.tunnel_mtu

    @staticmethod
    def _addresses(netlink: Netlink, index: int) -> list[str]:
        there = messages.addresses(netlink)
        return [record.address for record in there if record.index == index]


def _address(wanted: Tunnel) -> str:
    return f"{wanted.address}/{wanted.prefix_length}"
