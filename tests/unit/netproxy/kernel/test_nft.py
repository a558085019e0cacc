"""libnftables, in namespaces that go with the call."""

from __future__ import annotations

import os
import threading

import pytest

from skep.env import Rejected
from skep.netproxy.kernel.adapters.inside import run_each, run_in_new, run_inside
from skep.netproxy.kernel.adapters.natrules import supported
from skep.netproxy.kernel.adapters.nft import Nft, NftFailed
from skep.netproxy.kernel.core import natvip
from tests.support.netns import needs_namespaces

WHY_NOT = supported() or ""
pytestmark = [
    needs_namespaces(),
    pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT),
]


def test_a_missing_library_is_told_with_what_to_do() -> None:
    with pytest.raises(Rejected, match="apt-get install libnftables1"):
        Nft("libnftables-none.so.1")


@pytest.mark.parametrize(
    ("script", "line"),
    [
        ("add table ip t\nadd rule ip t none accept\n", "add rule ip t none accept"),
        (
            "add table ip t\nadd chain ip t c\nadd rule ip t c nonsense\n",
            "add rule ip t c nonsense",
        ),
        # This one is the kernel's.
        ("add table ip t\ndelete table ip none\n", "delete table ip none"),
    ],
)
def test_a_failed_transaction_names_its_line_and_does_nothing(script: str, line: str) -> None:
    nft = Nft()

    def work() -> None:
        with pytest.raises(NftFailed) as caught:
            nft.run(script)
        assert caught.value.line == line
        assert line in str(caught.value)
        assert nft.read("t") is None

    run_in_new(work)


def test_many_threads_change_their_own_namespaces() -> None:
    nft = Nft()

    def work(number: int) -> None:
        table = None
        for turn in range(10):
            count = 1 + (number + turn) % 5
            backends = tuple(f"10.9{number}.{turn}.{n}" for n in range(count))
            vips = {f"10.1.{vip}.1": backends for vip in range(20)}
            change = natvip.change("n", table, vips)
            nft.run(change.script)
            listing = nft.read(natvip.table_of("n"))
            assert listing is not None
            table = natvip.read_table(listing)
            assert table == change.after
            assert table.vips() == vips

    jobs = [(number, lambda n=number: run_in_new(lambda: work(n))) for number in range(8)]
    assert len(run_each(jobs)) == 8


def test_nothing_stays_open_and_the_caller_s_namespace_is_kept() -> None:
    def here() -> tuple[str, list[str], int]:
        namespace = os.readlink("/proc/thread-self/ns/net")
        return namespace, sorted(os.listdir("/proc/self/fd")), threading.active_count()

    nft = Nft()
    before = here()
    for _ in range(5):
        assert run_in_new(lambda: os.readlink("/proc/thread-self/ns/net")) != before[0]
        run_in_new(lambda: nft.run("add table ip t"))
        with pytest.raises(NftFailed):
            run_in_new(lambda: nft.run("nonsense"))
        with pytest.raises(OSError, match="skt-none"):
            run_inside("/run/netns/skt-none", lambda: nft.run("list tables"))
        with pytest.raises(OSError, match="Invalid argument"):
            run_inside("/etc/hostname", lambda: nft.run("list tables"))
    assert here() == before
