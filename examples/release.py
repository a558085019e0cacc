"""Release from a script, without an event loop: update a service, wait, and say how it ended.

skep up examples/timecheck.yaml
python examples/release.py 127.32.0.1:7410 demo_web web:2     # exits with 1 if it isn't what runs
"""

import sys

from skep import client
from skep.client import sync
from skep.domain.base import SECOND_NS, replace
from skep.domain.control import ServiceView
from skep.domain.spec import FailureAction, ServiceSpec, UpdateOrder, UpdatePolicy

POLICY = UpdatePolicy(
    parallelism=1,
    order=UpdateOrder.START_FIRST,
    monitor_ns=2 * SECOND_NS,
    failure_action=FailureAction.ROLLBACK,
)


class Teller:
    """Prints a line when there is something new to see of the service."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, views: tuple[ServiceView, ...]) -> None:
        for view in views:
            state = view.service.update.state.value if view.service.update else "at rest"
            problems = "; ".join(view.problems)
            line = f"  {view.running}/{view.desired} {state} {problems}".rstrip()
            if line != self._last:
                print(line)
            self._last = line


def release(cluster: sync.Cluster, name: str, image: str, timeout_s: float = 120) -> bool:
    """Give the service another release; whether it runs in the end."""

    def edit(spec: ServiceSpec) -> ServiceSpec:
        run = replace(spec.task.run, image=image)
        return replace(spec, task=replace(spec.task, run=run), update=POLICY)

    service = cluster.services.change(name, edit)
    print(f"{name}: revision {service.revision} is {image}")
    try:
        cluster.wait_converged(
            {service.id: service.revision}, timeout_s=timeout_s, progress=Teller()
        )
    except (client.RolledBack, client.UpdatePaused, client.NotConverged) as error:
        print(error)
        return False
    print(f"{name}: {image} runs")
    return True


def main(addresses: list[str], name: str, image: str) -> bool:
    """Connect and run; errors say what to do."""
    with sync.connect(addresses) as cluster:
        try:
            return release(cluster, name, image)
        except client.NotFound as error:
            sys.exit(str(error))
        except client.Unavailable as error:
            sys.exit(f"{error}: is the cluster up? `skep local ls` tells")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: python examples/release.py ADDRESS[,ADDRESS ...] SERVICE IMAGE")
    sys.exit(0 if main(sys.argv[1].split(","), sys.argv[2], sys.argv[3]) else 1)
