"""`python -m bench.containers`: needs root, Docker (with runc and containerd) and busybox.

Both sides have three nodes, of which each has a dockerd of its own in a network namespace; images,
commands and the pace at which the benchmark looks are the same. Where this machine can't have
that, Swarm's figures of another day are shown, and nothing is claimed of Skep.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from bench.containers import figures
from bench.containers.daemons import Place, daemons, give_images, why_not
from bench.containers.ours import skep
from bench.containers.side import IMAGE, RELEASES, Side
from bench.containers.swarm import Swarm
from bench.report import Row, run
from tests.support import netns

NODES = 3


def main() -> None:
    """Measure and print."""
    run("containers", "containers on three nodes, beside Docker Swarm", measure)


def measure(is_quick: bool) -> Iterable[Row]:
    """Both sides are up all the time, so that either has the other's idle daemons beside it."""
    why = why_not()
    if why:
        yield from figures.recorded(why)
        return
    with (
        tempfile.TemporaryDirectory(prefix="skep-bench-") as folder,
        swarm(Path(folder) / "swarm") as peer,
        skep(Path(folder) / "skep") as ours,
    ):
        yield from figures.measured(ours, peer, is_quick)


@contextlib.contextmanager
def swarm(folder: Path) -> Iterator[Side]:
    """Three managers in namespaces of their own."""
    with netns.lab(NODES) as lab:
        places = [Place(node, folder / node, lab.path(node)) for node in lab.nodes]
        with daemons(places) as made:
            give_images(made, IMAGE, RELEASES)
            peer = Swarm(made)
            peer.found([lab.address(node) for node in lab.nodes])
            yield peer


if __name__ == "__main__":
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    main()
