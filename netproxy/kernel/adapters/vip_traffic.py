"""The program that counts what goes through the VIPs: put in place, read, taken away.

It stands on the shoulders of `Vips`, whose programs must be attached to the same cgroup, and like
them it stays when the netproxy ends.
"""

from __future__ import annotations

import os
from pathlib import Path

from skep.env import Retryable
from skep.netproxy.kernel.adapters import bpf, cgroup
from skep.netproxy.kernel.core import programs, traffic, vips
from skep.netproxy.kernel.core.programs import ATTACH_TYPES, Kind
from skep.netproxy.kernel.core.traffic import Traffic


class VipTraffic:
    """Counts per VIP, of the tasks in one cgroup; `open` after `Vips.open`."""

    def __init__(self, cgroup_path: Path) -> None:
        self._folder = cgroup_path
        self._table: bpf.Map | None = None

    def open(self) -> None:
        """Begin to count, or go on where an earlier process has begun. Raises OSError.

        Raises Retryable where the VIP programs aren't there.
        """
        with cgroup.opened(self._folder) as folder:
            origins_id = _origins_id(folder)
            for program in cgroup.ours(folder, (traffic.ATTACH_TYPE,)):
                # One that looks into the maps of VIP programs that are gone counts nothing.
                is_alive = origins_id in program.info.map_ids
                if is_alive and program.info.name == traffic.name() and self._table is None:
                    tables = cgroup.maps_of(program)
                    self._table = tables.pop("skep_traffic")
                    for table in tables.values():
                        table.close()
                    os.close(program.fd)
                else:
                    cgroup.detach(folder, program)
            if self._table is None:
                self._table = _load(folder, origins_id)

    def close(self) -> None:
        """Give the descriptor back; the counting goes on. Idempotent."""
        if self._table is not None:
            self._table.close()
            self._table = None

    def stop(self) -> None:
        """Count no more; what was counted is lost. Needs no `open`. Idempotent."""
        self.close()
        if self._folder.exists():
            with cgroup.opened(self._folder) as folder:
                for program in cgroup.ours(folder, (traffic.ATTACH_TYPE,)):
                    cgroup.detach(folder, program)

    def read(self) -> dict[tuple[int, str], Traffic]:
        """By (network number, VIP); only those that were connected to. Raises Retryable."""
        assert self._table is not None, "open() comes first"
        try:
            return {vips.read_key(key): traffic.read(value) for key, value in self._table.items()}
        except OSError as error:
            raise Retryable(f"traffic of VIPs: {error}") from error


def _origins_id(folder: int) -> int:
    """The id of the map in which the VIP programs note who has connected to what."""
    found = cgroup.ours(folder, (ATTACH_TYPES[Kind.GETPEERNAME4],))
    for program in found:
        os.close(program.fd)
    for program in found:
        if program.info.name == programs.name(Kind.GETPEERNAME4):
            return program.info.map_ids[0]  # it uses no other
    raise Retryable("the VIP programs are not attached; open Vips first")


def _load(folder: int, origins_id: int) -> bpf.Map:
    tables = {name: bpf.Map.create(name, spec) for name, spec in traffic.MAPS.items()}
    _, tables[traffic.ORIGINS] = bpf.map_by_id(origins_id)
    try:
        code = traffic.build({name: table.fd for name, table in tables.items()})
        program = bpf.load_program(traffic.name(), code, traffic.ATTACH_TYPE)
        try:
            bpf.attach(folder, program, traffic.ATTACH_TYPE)
        finally:
            os.close(program)
    except BaseException:
        tables.pop("skep_traffic").close()
        raise
    finally:
        for name, table in tables.items():
            if name != "skep_traffic":
                table.close()
    return tables["skep_traffic"]
