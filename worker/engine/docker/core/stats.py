"""What a container uses, read out of the kernel's files for it."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

MICROSECOND_NS = 1_000
# How engines name a container's group: "/docker/<id>", "docker-<id>.scope", "libpod-<id>.scope".
_CONTAINER = re.compile(r"(?:^|[/-])([0-9a-f]{64})(?:\.scope)?(?:/|$)")
# Files of each kind of figure, by the version of the kernel's interface and its controller.
V1_FILES = (
    ("cpuacct", "cpuacct.usage"),
    ("memory", "memory.usage_in_bytes"),
    ("memory", "memory.stat"),
    ("memory", "memory.limit_in_bytes"),
    ("pids", "pids.current"),
    ("blkio", "blkio.throttle.io_service_bytes_recursive"),
)
V2_FILES = (
    "cpu.stat",
    "memory.current",
    "memory.stat",
    "memory.max",
    "pids.current",
    "io.stat",
)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a container uses; None for what this kernel doesn't count. `memory_bytes` is what it
    holds, page cache and all, `working_set_bytes` what it would not give back at once: the figure
    of `docker stats`. Without a limit of its own, the machine's memory is its limit. Network bytes
    are those of its own namespace, loopback left out."""

    cpu_ns: int | None = None
    memory_bytes: int | None = None
    working_set_bytes: int | None = None
    memory_limit_bytes: int | None = None
    pids: int | None = None
    read_bytes: int | None = None
    written_bytes: int | None = None
    received_bytes: int | None = None
    sent_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Mounts:
    """Where the machine's groups are: of each controller of version 1, and of version 2, the part
    of the tree that can be seen, and the folder that it is seen in."""

    one: Mapping[str, tuple[str, str]]
    two: tuple[str, str] | None


def read_mounts(mountinfo: str) -> Mounts:
    """Read /proc/self/mountinfo."""
    one: dict[str, tuple[str, str]] = {}
    two = None
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, *rest) = before.split(), after.split() or [""]
        if len(fields) < 5:
            continue
        place = (fields[3], fields[4])
        if kind == "cgroup2":
            two = two or place
        elif kind == "cgroup" and len(rest) > 1:
            for controller in rest[1].split(","):
                one.setdefault(controller, place)
    return Mounts(one, two)


def files_of(cgroup: str, mounts: Mounts) -> dict[str, str]:
    """The files that tell of the container which a process is in, by their names; none for a
    process that is in no container. `cgroup` is its /proc/<pid>/cgroup."""
    one, two = {}, ""
    for line in cgroup.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            two = path
        for controller in controllers.split(","):
            one[controller] = path
    found = {}
    if mounts.two is not None and _CONTAINER.search(two):
        folder = _folder(mounts.two, two)
        found = {name: f"{folder}/{name}" for name in V2_FILES}
    for controller, name in V1_FILES:
        path = one.get(controller, "")
        if controller in mounts.one and _CONTAINER.search(path):
            # In a mixed tree the controllers that are under version 1 count there alone.
            found[name] = f"{_folder(mounts.one[controller], path)}/{name}"
    return found


def usage_of(texts: Mapping[str, str], machine_bytes: int, devices: str | None) -> Usage:
    """Figures out of files, by their names; what is missing or can't be read is not known.
    `devices` is the /proc/<pid>/net/dev of a namespace of its own."""
    memory = _number(texts.get("memory.usage_in_bytes") or texts.get("memory.current"))
    stat = _pairs(texts.get("memory.stat", ""))
    inactive = stat.get("total_inactive_file", stat.get("inactive_file", 0))
    limit = _number(texts.get("memory.limit_in_bytes") or texts.get("memory.max"))
    limit = min(limit or machine_bytes, machine_bytes)
    read, written = _block_bytes(texts)
    received, sent = (None, None) if devices is None else _network_bytes(devices)
    return Usage(
        cpu_ns=_cpu_ns(texts),
        memory_bytes=memory,
        # As Docker's own client reckons.
        working_set_bytes=memory - inactive if memory and memory > inactive else memory,
        memory_limit_bytes=min(limit or machine_bytes, machine_bytes)
        if memory is not None
        else None,
        pids=_number(texts.get("pids.current")),
        read_bytes=read,
        written_bytes=written,
        received_bytes=received,
        sent_bytes=sent,
    )


def _folder(mount: tuple[str, str], path: str) -> str:
    """Where a group is seen. A path out of another namespace begins with "/.."."""
    root, folder = mount
    inside = posixpath.relpath(path, root) if path.startswith(root) else path.lstrip("/")
    return posixpath.normpath(f"{folder}/{inside}")


def _cpu_ns(texts: Mapping[str, str]) -> int | None:
    if "cpuacct.usage" in texts:
        return _number(texts["cpuacct.usage"])
    used_us = _pairs(texts.get("cpu.stat", "")).get("usage_usec")
    return None if used_us is None else used_us * MICROSECOND_NS


def _block_bytes(texts: Mapping[str, str]) -> tuple[int | None, int | None]:
    if (one := texts.get("blkio.throttle.io_service_bytes_recursive")) is not None:
        words = [line.split() for line in one.splitlines()]
        rows = [(each[1], each[2]) for each in words if len(each) == 3]
        return _total(rows, "Read"), _total(rows, "Write")
    if (two := texts.get("io.stat")) is not None:
        rows = [
            (name, value)
            for word in two.split()
            for name, equals, value in (word.partition("="),)
            if equals
        ]
        return _total(rows, "rbytes"), _total(rows, "wbytes")
    return None, None


def _network_bytes(devices: str) -> tuple[int, int]:
    received = sent = 0
    for line in devices.splitlines():
        name, colon, rest = line.partition(":")
        counts = rest.split()
        if colon and name.strip() != "lo" and len(counts) > 8:
            received += _number(counts[0]) or 0
            sent += _number(counts[8]) or 0
    return received, sent


def _total(rows: Iterable[tuple[str, str]], name: str) -> int:
    return sum(_number(value) or 0 for each, value in rows if each == name)


def _pairs(text: str) -> dict[str, int]:
    """Lines of a name and a number."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if (number := _number(value)) is not None:
            found[name] = number
    return found


def _number(text: str | None) -> int | None:
    """A number; None for "max" and whatever else is none."""
    text = (text or "").strip()
    return int(text) if text.isdecimal() else None
