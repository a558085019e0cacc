"""Counters of the kernel, by service, whatever the kernel says."""

from __future__ import annotations

from collections.abc import Mapping

from skep.env import Retryable
from skep.netproxy.core.tally import PortTally, Tally, VipTally
from skep.netproxy.kernel.adapters.counting import Counting, Owners
from skep.netproxy.kernel.core.ingressread import PortCounters
from skep.netproxy.kernel.core.traffic import Traffic
from skep.netproxy.kernel.core.understood import VipKey
from skep.netproxy.kernel.core.vips import Counts

OWNERS = Owners(
    {(1, "10.0.0.2"): "web", (2, "10.0.1.2"): "web", (1, "10.0.0.3"): "api"}, {("tcp", 80): "web"}
)


class _Kernel:
    """Both sides of what is counted."""

    def __init__(self) -> None:
        self.failure: Retryable | None = None

    def counters(self) -> tuple[tuple[PortCounters, ...], int]:
        # The second port belongs to no service (any more).
        return (PortCounters("tcp", 80, 4, 400, 2), PortCounters("udp", 53, 1, 1, 1)), 5

    def connects(self) -> Mapping[VipKey, Counts]:
        if self.failure is not None:
            raise self.failure
        return {
            (1, "10.0.0.2"): Counts(1, 0, 3),
            (2, "10.0.1.2"): Counts(10, 2, 0),
            (1, "10.0.0.3"): Counts(0, 7, 0),
            (9, "10.9.9.9"): Counts(100, 0, 0),
        }

    def traffic(self) -> Mapping[VipKey, Traffic]:
        return {}

    def strays(self) -> int:
        return 3


TALLY = Tally(
    vips={"web": VipTally(11, 2, 3), "api": VipTally(0, 7, 0)},
    ports=(PortTally("web", "80/tcp", 2, 4, 400),),
    strays=8,
)


def test_a_service_is_the_sum_of_its_addresses() -> None:
    kernel = _Kernel()
    assert Counting(kernel, kernel).read(OWNERS) == TALLY


def test_counters_do_not_vanish_while_the_kernel_does_not_say() -> None:
    kernel = _Kernel()
    counting = Counting(kernel, kernel)
    counting.read(OWNERS)
    kernel.failure = Retryable("not now")
    assert counting.read(OWNERS) == TALLY
    kernel.failure = None
    counting.close()
    kernel.failure = Retryable("its descriptors are gone")
    assert counting.read(OWNERS) == TALLY
