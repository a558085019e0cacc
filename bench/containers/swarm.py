"""Docker Swarm: three managers, which run tasks as well, on three dockerd."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from bench.containers.daemons import Daemon, engine_processes
from bench.containers.docker import Docker
from bench.containers.side import (
    COMMAND,
    PARALLELISM,
    RELEASES,
    Net,
    Seen,
    Wish,
    image,
    until,
)

NETWORK = "over"
PORT = 2377


class Swarm:
    """`Side` for Docker Swarm; every question goes to the first manager."""

    def __init__(self, daemons: Sequence[Daemon]) -> None:
        self.engines: tuple[Docker, ...] = tuple(each.docker for each in daemons)
        self._daemons = tuple(daemons)
        self.folders = tuple(each.place.folder for each in daemons)
        self._manager = self.engines[0]
        self.name = f"Swarm {self._manager.get('/version')['Version']}"

    def found(self, addresses: Sequence[str]) -> None:
        """Make them one swarm; `addresses` are the nodes', in the same order."""
        first, *others = (f"{address}:{PORT}" for address in addresses)
        listen = {"ListenAddr": first, "AdvertiseAddr": first}
        self._manager.post("/swarm/init", listen)
        token = self._manager.get("/swarm")["JoinTokens"]["Manager"]
        for docker, address in zip(self.engines[1:], others, strict=True):
            docker.post(
                "/swarm/join",
                {
                    "ListenAddr": address,
                    "AdvertiseAddr": address,
                    "RemoteAddrs": [first],
                    "JoinToken": token,
                },
            )
        until(self._is_whole, "three ready nodes")
        self._manager.post("/networks/create", {"Name": NETWORK, "Driver": "overlay"})

    def own_processes(self) -> dict[str, list[int]]:
        """See `Side`."""
        return engine_processes(self._daemons)

    def create(self, wish: Wish) -> None:
        """See `Side`."""
        policy = {"Parallelism": PARALLELISM, "Delay": 0, "Order": wish.order.value}
        network = {Net.HOST: "host", Net.OVERLAY: NETWORK}[wish.net]
        spec: dict[str, Any] = {
            "Name": wish.name,
            "Mode": {"Replicated": {"Replicas": wish.replicas}},
            "TaskTemplate": {
                "ContainerSpec": {"Image": image(RELEASES[0]), "Command": list(COMMAND)},
                "RestartPolicy": {"Condition": "any", "Delay": 0},
                "Networks": [{"Target": network}],
            },
            "UpdateConfig": policy,
        }
        if wish.net is Net.OVERLAY:
            # Virtual addresses don't work on each kernel, and cost Swarm a little time.
            spec["EndpointSpec"] = {"Mode": "dnsrr"}
        self._manager.post("/services/create", spec)

    def update(self, name: str) -> None:
        """See `Side`."""
        service = self._manager.get(f"/services/{name}")
        spec = service["Spec"]
        spec["TaskTemplate"]["ContainerSpec"]["Image"] = image(RELEASES[1])
        version = service["Version"]["Index"]
        self._manager.post(f"/services/{service['ID']}/update", spec, version=version)

    def remove(self, name: str) -> None:
        """See `Side`."""
        self._manager.ask("DELETE", f"/services/{name}")

    def tasks(self, name: str) -> list[Seen]:
        """See `Side`."""
        chosen = json.dumps({"service": [name]})
        return [
            Seen(
                task["ID"],
                task["Spec"]["ContainerSpec"]["Image"].rpartition(":")[2],
                task["Status"]["State"] == "running",
            )
            for task in self._manager.get("/tasks", filters=chosen)
        ]

    def _is_whole(self) -> bool:
        nodes = self._manager.get("/nodes")
        return len(nodes) == len(self.engines) and all(
            node["Status"]["State"] == "ready"
            and node.get("ManagerStatus", {}).get("Reachability") == "reachable"
            for node in nodes
        )
