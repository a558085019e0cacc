"""What whoever comes from Docker may have meant. Pure."""

from __future__ import annotations

import re

from skep.cli.output import printable
from skep.domain.objects import Service

_NO_PROGRAM = "is no program on this node"
_IMAGE = re.compile(r"[a-z0-9][a-z0-9._:/@-]*")
_TASK = re.compile(r"(.+)\.[0-9]+")
_EXAMPLE = "-- python3 -m http.server"


def not_an_image(service: Service, told: str) -> list[str]:
    """A line for a service that was given an image as its command, which failed as it was `told`:
    nothing of that name can be run."""
    run = service.spec.task.run
    words = (*run.command, *run.args)
    if len(words) != 1 or not _IMAGE.fullmatch(words[0]) or _NO_PROGRAM not in told:
        return []
    return [
        printable(
            f"if '{words[0]}' is an image: the process engine runs a command on the node, not an "
            f"image, as in: skep service update {service.name} {_EXAMPLE}"
        )
    ]


def not_a_service(ref: str) -> str:
    """What to do with a task's name where a service's is asked for; empty if it is none."""
    found = _TASK.fullmatch(ref)
    if found is None:
        return ""
    return (
        f"there is no service '{ref[:80]}'; if that is a task, its service's tasks are in: skep "
        f"service ps {found.group(1)[:80]}"
    )
