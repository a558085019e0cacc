"""Virtual addresses by address translation, in many namespaces at once; see `core.natvip`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from skep.netproxy.core.steps import changed
from skep.netproxy.kernel.adapters import conntrack, nftcounter, sourceroutes
from skep.netproxy.kernel.adapters.conntrack import UdpTarget
from skep.netproxy.kernel.adapters.inside import exists, run_each, run_inside
from skep.netproxy.kernel.adapters.known import Known, attempt
from skep.netproxy.kernel.adapters.nft import Nft, NftFailed
from skep.netproxy.kernel.core import natvip
from skep.netproxy.kernel.core.natvip import VipTable
from skep.netproxy.kernel.core.script import STRAYS

Backends = Mapping[str, tuple[str, ...]]
"""VIP to the addresses of the tasks behind it; none: connections are refused."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """A namespace's table, and the VIPs that it was brought to; None: it is as it was found."""

    table: VipTable | None
    wanted: Backends | None = None

    def changes(self, wanted: Backends) -> dict[str, tuple[str, ...] | None]:
        """What is to be changed in it."""
        if self.table is None or self.wanted is None:
            return natvip.with_gone(self.table, wanted)
        return {vip: wanted.get(vip) for vip in changed(self.wanted, wanted)}


class NatVips:
    """The VIPs of one node's tasks. Raises Rejected where libnftables is missing.

    It remembers, and reads what it doesn't know, as `Ingress` does. One call at a time; all of
    them block, for 16 ms and more: each namespace that changes waits for the kernel, side by side.
    """

    def __init__(self, node: str) -> None:
        self._nft = Nft()
        self._node = node
        self._table = natvip.table_of(node)
        self._known: Known[_Seen] = Known()
        self._unsettled: dict[str, set[str]] = {}

    def apply(self, wanted: Mapping[str, Backends]) -> tuple[str, ...]:
        """Give each of these namespaces these VIPs and no others; the rest are left as they are.

        Returns, for a person, what could not be done. Raises Rejected for what can't be wanted;
        nothing is done then.
        """
        for namespace, backends in wanted.items():
            seen = self._seen(namespace)
            natvip.check_vips(seen.changes(backends), seen.table or natvip.EMPTY)
        self._forget_gone(wanted)
        done = run_each(
            (
                namespace,
                partial(
                    attempt,
                    f"virtual addresses of the task at {namespace}",
                    partial(self._apply, namespace, backends),
                ),
            )
            for namespace, backends in wanted.items()
        )
        return tuple(problem for _, problems in done for problem in problems)

    def observe(self, namespace: str) -> dict[str, tuple[str, ...]] | None:
        """The VIPs there, as the kernel has them; None where it has no table that this release
        made. Raises NftFailed, OSError."""
        table = run_inside(namespace, self._read)
        return None if table is None else table.vips()

    def is_there(self, namespace: str) -> bool:
        """Whether any release has made its table there. Raises NftFailed, OSError."""
        return run_inside(namespace, partial(self._nft.has, self._table))

    def strays(self, namespace: str) -> int:
        """How many packets the guard there has dropped. Raises NftFailed, OSError."""
        return run_inside(namespace, partial(nftcounter.packets, self._table, STRAYS))

    def forget(self) -> None:
        """Read everything in the next pass, in case that others have changed it."""
        self._known.forget_all()

    def drop(self, namespace: str) -> None:
        """Remove all VIPs from a namespace; idempotent, and fine where it is gone already.

        Raises NftFailed, OSError.
        """
        self._known.forget(namespace)
        self._unsettled.pop(namespace, None)
        with contextlib.suppress(FileNotFoundError):
            run_inside(namespace, partial(self._nft.delete, self._table))

    def clean(self, namespaces: Iterable[str] = ()) -> tuple[str, ...]:
        """The same of these and of all that this object has served; returns problems."""
        problems: tuple[str, ...] = ()
        for namespace in sorted({*namespaces, *self._known.names()}):
            problems += attempt(namespace, partial(self.drop, namespace))
        return problems

    def _forget_gone(self, wanted: Mapping[str, Backends]) -> None:
        for namespace in {*self._known.names(), *self._unsettled} - set(wanted):
            if not exists(namespace):
                self._known.forget(namespace)
                self._unsettled.pop(namespace, None)

    def _seen(self, namespace: str) -> _Seen:
        try:
            return self._known.get(namespace) or _Seen(None)
        except OSError:
            return _Seen(None)  # what becomes of it is told when it is to be changed

    def _apply(self, namespace: str, wanted: Backends) -> None:
        seen = self._known.get(namespace)
        if seen is not None and not self._unsettled.get(namespace) and not seen.changes(wanted):
            self._known.set(namespace, _Seen(seen.table, wanted))
            return
        self._known.forget(namespace)
        try:
            self._pass(namespace, seen, wanted)
        except NftFailed:
            if seen is None:
                raise
            # Others may have changed the table behind our back: once more, on what is there now.
            self._pass(namespace, None, wanted)

    def _pass(self, namespace: str, seen: _Seen | None, wanted: Backends) -> None:
        after = run_inside(namespace, partial(self._pass_inside, namespace, seen, wanted))
        self._known.set(namespace, _Seen(after, wanted))

    def _pass_inside(self, namespace: str, seen: _Seen | None, wanted: Backends) -> VipTable:
        unsettled = self._unsettled.setdefault(namespace, set())
        if seen is None:
            # One backend is reached by several addresses from here: with clocks that differ by
            # address, what it remembers of an earlier connection would make it ignore a new one.
            sourceroutes.write_setting("tcp_timestamps", "2")
            seen = _Seen(self._read())
            unsettled.update(wanted)
        change = natvip.change(self._node, seen.table, seen.changes(wanted))
        unsettled.update(change.touched)
        if change.script:
            self._nft.run(change.script)
        # Asking for flows takes the kernel longer than anything else here.
        if unsettled and (seen.table is None or nftcounter.packets(self._table, natvip.UDP_FLOWS)):
            conntrack.settle_udp(
                UdpTarget(vip, None, frozenset(wanted.get(vip, ()))) for vip in sorted(unsettled)
            )
        unsettled.clear()
        return change.after

    def _read(self) -> VipTable | None:
        listing = self._nft.read(self._table)
        return None if listing is None else natvip.read_table(listing)
