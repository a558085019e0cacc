"""The kernel's files, read as figures."""

from __future__ import annotations

import pytest

from skep.worker.engine.docker.core.stats import (
    V2_FILES,
    Mounts,
    Usage,
    files_of,
    read_mounts,
    usage_of,
)

ID = "0123456789abcdef" * 4
MACHINE_BYTES = 8_000_000_000

MOUNTINFO = """\
23 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 /outer /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
37 31 0:34 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
38 31 0:35 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw
"""
V1 = Mounts(
    {
        "rw": ("/", "/sys/fs/cgroup/cpu,cpuacct"),
        "cpu": ("/", "/sys/fs/cgroup/cpu,cpuacct"),
        "cpuacct": ("/", "/sys/fs/cgroup/cpu,cpuacct"),
        "memory": ("/outer", "/sys/fs/cgroup/memory"),
        "name=systemd": ("/", "/sys/fs/cgroup/systemd"),
    },
    ("/", "/sys/fs/cgroup/unified"),
)
V2 = Mounts({}, ("/", "/sys/fs/cgroup"))


def test_where_groups_are_seen() -> None:
    assert read_mounts(MOUNTINFO) == V1
    assert read_mounts("") == Mounts({}, None)
    assert read_mounts("what - ever\n\n - \n") == Mounts({}, None)


def test_the_files_of_version_1() -> None:
    cgroup = (
        f"9:name=systemd:/docker/{ID}\n"
        f"4:memory:/outer/docker/{ID}\n"
        f"2:cpu,cpuacct:/docker/{ID}\n"
        "0::/\n"
    )
    assert files_of(cgroup, V1) == {
        "cpuacct.usage": f"/sys/fs/cgroup/cpu,cpuacct/docker/{ID}/cpuacct.usage",
        "memory.usage_in_bytes": f"/sys/fs/cgroup/memory/docker/{ID}/memory.usage_in_bytes",
        "memory.stat": f"/sys/fs/cgroup/memory/docker/{ID}/memory.stat",
        "memory.limit_in_bytes": f"/sys/fs/cgroup/memory/docker/{ID}/memory.limit_in_bytes",
    }


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        (f"/docker/{ID}", f"/sys/fs/cgroup/docker/{ID}"),
        (
            f"/system.slice/docker-{ID}.scope",
            f"/sys/fs/cgroup/system.slice/docker-{ID}.scope",
        ),
        (f"/docker/{ID}/init", f"/sys/fs/cgroup/docker/{ID}/init"),
        (
            f"/machine.slice/libpod-{ID}.scope",
            f"/sys/fs/cgroup/machine.slice/libpod-{ID}.scope",
        ),
    ],
)
def test_the_files_of_version_2(path: str, folder: str) -> None:
    assert files_of(f"0::{path}\n", V2) == {name: f"{folder}/{name}" for name in V2_FILES}


@pytest.mark.parametrize(
    "cgroup", ["", "0::/\n", "0::/user.slice/session-1.scope\n", f"0::/x{ID}y\n", "nonsense"]
)
def test_a_process_in_no_container_has_none(cgroup: str) -> None:
    assert files_of(cgroup, V2) == {}
    assert files_of(cgroup, V1) == {}


DEVICES = """\
Inter-|   Receive                            |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets
    lo:  999       9    0    0    0     0          0         0      999       9
  eth0: 1000       9    0    0    0     0          0         0     2000       9
  eth1:   10       9    0    0    0     0          0         0       20       9
"""


def test_figures_of_version_1() -> None:
    texts = {
        "cpuacct.usage": "1234567890\n",
        "memory.usage_in_bytes": "5000000\n",
        "memory.stat": "cache 1\ninactive_file 7\ntotal_inactive_file 1000000\n",
        "memory.limit_in_bytes": "9223372036854771712\n",
        "pids.current": "3\n",
        "blkio.throttle.io_service_bytes_recursive": (
            "8:0 Read 100\n8:0 Write 20\n8:16 Read 1\n8:16 Write 2\n8:0 Total 120\nTotal 123\n"
        ),
    }
    assert usage_of(texts, MACHINE_BYTES, DEVICES) == Usage(
        cpu_ns=1234567890,
        memory_bytes=5_000_000,
        working_set_bytes=4_000_000,
        memory_limit_bytes=MACHINE_BYTES,
        pids=3,
        read_bytes=101,
        written_bytes=22,
        received_bytes=1010,
        sent_bytes=2020,
    )


def test_figures_of_version_2() -> None:
    texts = {
        "cpu.stat": "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n",
        "memory.current": "5000000\n",
        "memory.stat": "anon 1\ninactive_file 1000000\n",
        "memory.max": "6000000\n",
        "pids.current": "3\n",
        "io.stat": "8:0 rbytes=100 wbytes=20 rios=1 wios=1\n8:16 rbytes=1 wbytes=2\n",
    }
    assert usage_of(texts, MACHINE_BYTES, None) == Usage(
        cpu_ns=1_500_000,
        memory_bytes=5_000_000,
        working_set_bytes=4_000_000,
        memory_limit_bytes=6_000_000,
        pids=3,
        read_bytes=101,
        written_bytes=22,
    )


def test_no_limit_is_the_machines_and_what_is_not_there_is_not_known() -> None:
    assert usage_of({}, MACHINE_BYTES, None) == Usage()
    texts = {"memory.current": "7\n", "memory.max": "max\n", "cpu.stat": "?", "io.stat": "8:0 x"}
    assert usage_of(texts, MACHINE_BYTES, "") == Usage(
        memory_bytes=7,
        working_set_bytes=7,
        memory_limit_bytes=MACHINE_BYTES,
        read_bytes=0,
        written_bytes=0,
        received_bytes=0,
        sent_bytes=0,
    )
