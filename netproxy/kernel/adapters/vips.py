"""VIPs by BPF: the programs on the node's cgroup, and their maps.

Tasks join the cgroup `skep/<node>` of the v2 tree, or a folder below it. The programs hang there
and keep the maps alive, so VIPs work on while no netproxy runs, and the next one finds them.

A call that has begun when `set_service` returns may still reach a backend that was removed, as one
a moment earlier would have; no call that begins after it does. Connections that are open go on.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from skep.env import Rejected, Retryable
from skep.netproxy.kernel.adapters import bpf, cgroup
from skep.netproxy.kernel.core import programs, traffic, vips
from skep.netproxy.kernel.core.asm import Assembler, Helper, Register
from skep.netproxy.kernel.core.programs import ATTACH_TYPES, MAPS, SLOT_COUNT, Kind
from skep.netproxy.kernel.core.slots import Slots
from skep.netproxy.kernel.core.vips import Counts, Networks, Services, Writes


@dataclass(frozen=True, slots=True)
class ObservedVip:
    """A service as the kernel has it."""

    backends: tuple[str, ...]
    counts: Counts


@dataclass(frozen=True, slots=True)
class Observed:
    """What the kernel has, for a person who wonders."""

    cgroup: str
    programs: tuple[str, ...]  # names, in the order of `Kind`, those of older formats too
    services: Mapping[tuple[int, str], ObservedVip]
    scopes: Mapping[int, Networks]


def supported() -> str | None:
    """None, or why this machine can't have VIPs by BPF, and what would help."""
    root = cgroup.root()
    if root is None:
        return "there is no cgroup v2 tree at /sys/fs/cgroup or /sys/fs/cgroup/unified"
    if not os.access(root, os.W_OK):
        return f"{root} can't be written to: netproxy must run as root, outside of containers"
    probe = Assembler()
    probe.move(Register.R1, -errno.ECONNREFUSED)
    probe.call(Helper.SET_RETVAL)
    probe.move(Register.R0, 1)
    probe.exit()
    try:
        fd = bpf.load_program("skep_probe", probe.assemble({}), ATTACH_TYPES[Kind.CONNECT4])
    except OSError as error:
        if error.errno == errno.EPERM:
            return "bpf(2) is not permitted: netproxy needs CAP_BPF and CAP_NET_ADMIN (root)"
        if error.errno == errno.ENOSYS:
            return "this kernel has no bpf(2)"
        if error.errno == errno.EINVAL:
            return "this kernel is too old, or built without CONFIG_CGROUP_BPF: 5.18 is needed"
        return f"a trial program could not be loaded: {error}"
    os.close(fd)
    return None


class Vips:
    """The VIPs of one node. Nothing works before `open`; after it, call `apply` first.

    Every method is a handful of system calls and takes well under a millisecond for one service,
    so they may be called from an event loop. Those that fail in the kernel raise Retryable, and
    leave what the next `apply` puts right.
    """

    def __init__(
        self,
        node: str,
        root: Path | None = None,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """`root` is the cgroup v2 tree, found if it isn't given. Raises Rejected.

        `now_ns` counts from the machine's start, as generations outlive this process.
        """
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", node):
            raise Rejected(f"{node!r} can't be a node's name: it names a cgroup")
        root = root or cgroup.root()
        if root is None:
            raise Rejected("there is no cgroup v2 tree; `supported` says so")
        self._folder = root / "skep" / node
        self._now_ns = now_ns
        self._generation = 0
        self._maps: dict[str, bpf.Map] = {}
        self._memory: mmap.mmap | None = None
        self._slots: Slots | None = None
        self._outdated: list[cgroup.Attached] = []  # of other formats

    @property
    def cgroup_path(self) -> Path:
        """Tasks join it by writing their pid to `cgroup.procs`, here or in a folder below."""
        return self._folder

    # ------------------------------------------------------------------------ life

    def open(self) -> None:
        """Find what an earlier process has left, or begin anew. Raises Retryable.

        Programs of another version stay until `apply` has filled the maps of the new ones: in
        between both run, and what the old one has turned into a backend is none of the new one's
        business.
        """
        try:
            with _retryable(f"VIP programs on {self._folder}"):
                cgroup.make(self._folder)
                with cgroup.opened(self._folder) as folder:
                    self._adopt_or_load(folder)
                self._memory = self._maps["skep_backends"].memory()
                held = self._read_places().values()
        except BaseException:
            self.close()
            raise
        self._generation = max((generation for _, generation in held), default=0)
        self._slots = Slots(SLOT_COUNT, [place for place, _ in held])

    def close(self) -> None:
        """Give the descriptors back; everything goes on working. Idempotent."""
        for table in self._maps.values():
            table.close()
        for program in self._outdated:
            os.close(program.fd)
        if self._memory is not None:
            self._memory.close()
        self._maps, self._outdated, self._memory, self._slots = {}, [], None, None

    def clean(self) -> None:
        """Detach everything, of whatever version, and remove the cgroup. Needs no `open`.

        Folders in which a process still lives stay. Idempotent.
        """
        self.close()
        if not self._folder.exists():
            return
        with cgroup.opened(self._folder) as folder:
            for program in cgroup.ours(folder, (*ATTACH_TYPES.values(), traffic.ATTACH_TYPE)):
                cgroup.detach(folder, program)
        cgroup.remove(self._folder)

    # --------------------------------------------------------------------- changes

    def set_scope(self, cookie: int, networks: Networks) -> None:
        """The networks whose VIPs mean something in the namespace of this cookie.

        Raises Rejected and Retryable.
        """
        key, value = vips.parse_cookie(cookie), vips.parse_scope(cookie, networks)
        with _retryable(f"VIPs in namespace {cookie}"):
            self._maps["skep_scopes"].update(key, value)

    def drop_scope(self, cookie: int) -> None:
        """The namespace is gone, or on no network. Idempotent. Raises Rejected and Retryable."""
        key = vips.parse_cookie(cookie)
        with _retryable(f"VIPs in namespace {cookie}"):
            self._maps["skep_scopes"].delete(key)

    def set_service(self, number: int, vip: str, backends: tuple[str, ...]) -> None:
        """From now on the VIP leads to these, in turns; with none it refuses at once.

        Raises Rejected and Retryable.
        """
        key = vips.parse_key(number, vip)
        self._change(key, vips.parse_backends(backends))

    def drop_service(self, number: int, vip: str) -> None:
        """The address is a VIP no longer. Idempotent. Raises Rejected and Retryable."""
        self._change(vips.parse_key(number, vip), None)

    def apply(self, services: Services, scopes: Mapping[int, Networks]) -> int:
        """Make the kernel hold just these; returns how many services and scopes have changed.

        Compares with what the maps hold, not with what was written to them earlier. Raises
        Rejected, before anything is written, and Retryable.
        """
        wanted = vips.parse_services(services)
        wanted_scopes = {
            vips.parse_cookie(cookie): vips.parse_scope(cookie, networks)
            for cookie, networks in scopes.items()
        }
        with _retryable("VIPs"):
            held = self._read()
            held_scopes = dict(self._maps["skep_scopes"].items())
            changed = [item for item in wanted_scopes.items() if item not in held_scopes.items()]
            gone = [key for key in held_scopes if key not in wanted_scopes]
            keys = vips.with_gone(wanted, held)
            # A namespace comes to know a network when its VIPs are there, and forgets it before.
            self._maps["skep_scopes"].delete_many(gone)
            writes = self._write(held, keys)
            self._maps["skep_scopes"].update_many(changed)
            self._detach_outdated()
        return len(changed) + len(gone) + len(writes.services) + len(writes.services_gone)

    # --------------------------------------------------------------------- reading

    def counters(self) -> dict[tuple[int, str], Counts]:
        """Connects and refusals by (network number, VIP)."""
        with _retryable("counters of VIPs"):
            return {
                vips.read_key(key): vips.read_counts(value)
                for key, value in self._maps["skep_counters"].items()
            }

    def observe(self) -> Observed:
        """What the kernel has at this moment."""
        counts = self.counters()
        with _retryable("VIPs"), cgroup.opened(self._folder) as folder:
            names = []
            for program in cgroup.ours(folder, ATTACH_TYPES.values()):
                os.close(program.fd)
                names.append(program.info.name)
            services = {
                vips.read_key(key): entry.backends for key, entry in self._read().services.items()
            }
            scopes = dict(vips.read_scope(v) for _, v in self._maps["skep_scopes"].items())
        return Observed(
            cgroup=str(self._folder),
            programs=tuple(names),
            services={
                key: ObservedVip(
                    tuple(map(vips.read_address, backends)), counts.get(key, Counts(0, 0, 0))
                )
                for key, backends in services.items()
            },
            scopes=scopes,
        )

    # -------------------------------------------------------------------- programs

    def _adopt_or_load(self, folder: int) -> None:
        found = cgroup.ours(folder, ATTACH_TYPES.values())
        main = programs.name(Kind.SENDMSG4)  # which uses all the maps
        adopted = next((program for program in found if program.info.name == main), None)
        if adopted is not None:
            self._maps = cgroup.maps_of(adopted)
            map_ids = frozenset(adopted.info.map_ids)
        else:
            self._maps = {name: bpf.Map.create(name, spec) for name, spec in MAPS.items()}
            map_ids = frozenset()
        in_place = set()
        for program in found:
            kind = next((kind for kind in Kind if programs.name(kind) == program.info.name), None)
            if kind is None or kind in in_place or not map_ids.issuperset(program.info.map_ids):
                self._outdated.append(program)
            else:
                in_place.add(kind)
                os.close(program.fd)
        # The main one first, so that the maps of an opening that breaks off here are found.
        descriptors = {name: table.fd for name, table in self._maps.items()}
        for kind in sorted(set(Kind) - in_place, key=lambda kind: kind is not Kind.SENDMSG4):
            code, attach_type = programs.build(kind, descriptors), ATTACH_TYPES[kind]
            fd = bpf.load_program(programs.name(kind), code, attach_type)
            try:
                bpf.attach(folder, fd, attach_type)
            finally:
                os.close(fd)

    def _detach_outdated(self) -> None:
        if not self._outdated:
            return
        with cgroup.opened(self._folder) as folder:
            while self._outdated:
                cgroup.detach(folder, self._outdated.pop())

    # ------------------------------------------------------------------------ maps

    def _change(self, key: bytes, backends: tuple[bytes, ...] | None) -> None:
        with _retryable("VIP {1} of network {0}".format(*vips.read_key(key))):
            value = self._maps["skep_services"].lookup(key)
            if value is None:
                held = vips.Held({}, frozenset(), frozenset())
            else:
                entry = self._entry(key, *vips.read_place(value))
                members = frozenset(key + backend for backend in entry.backends)
                held = vips.Held({key: entry}, members, frozenset((key,)))
            self._write(held, {key: backends})

    def _write(self, held: vips.Held, wanted: Mapping[bytes, tuple[bytes, ...] | None]) -> Writes:
        assert self._memory is not None, "open() comes first"
        if self._slots is None:
            self._slots = Slots(SLOT_COUNT, [place for place, _ in self._read_places().values()])
        self._generation = max(self._generation + 1, self._now_ns())
        try:
            writes = vips.plan(held, wanted, self._slots, self._generation)
            for first, contents in writes.slots:
                at = first * vips.SLOT_BYTES
                self._memory[at : at + len(contents)] = contents
            self._maps["skep_members"].delete_many(writes.members_gone)
            self._maps["skep_members"].update_many(writes.members)
            self._maps["skep_counters"].update_many(writes.counters)
            self._maps["skep_services"].update_many(writes.services)
            self._maps["skep_services"].delete_many(writes.services_gone)
            self._maps["skep_counters"].delete_many(writes.counters_gone)
        except BaseException:
            # Which slots are in use now, only the maps know.
            self._slots = None
            raise
        for first, count in writes.slots_freed:
            self._slots.give(first, count, self._generation)
        return writes

    def _read(self) -> vips.Held:
        return vips.Held(
            {key: self._entry(key, *place) for key, (place, _) in self._read_places().items()},
            {key for key, _ in self._maps["skep_members"].items()},
            {key for key, _ in self._maps["skep_counters"].items()},
        )

    def _read_places(self) -> dict[bytes, tuple[tuple[int, int], int]]:
        """(first, count) and generation of every service."""
        return {
            key: (vips.read_place(value), vips.read_generation(value))
            for key, value in self._maps["skep_services"].items()
        }

    def _entry(self, key: bytes, first: int, count: int) -> vips.Entry:
        assert self._memory is not None, "open() comes first"
        at, size = first * vips.SLOT_BYTES, count * vips.SLOT_BYTES
        backends = vips.read_slots(key, self._memory[at : at + size])
        return vips.Entry(first, count, backends)


@contextlib.contextmanager
def _retryable(what: str) -> Iterator[None]:
    """The kernel's errors as Retryable: most are of memory, or a full map."""
    try:
        yield
    except OSError as error:
        full = ": the table is full" if error.errno == errno.E2BIG else ""
        raise Retryable(f"{what}: {error}{full}") from error
