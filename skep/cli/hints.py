"""What to do about a failure, where its words say that. Pure."""

from __future__ import annotations

import re

from skep.domain.objects import Service

PORT_HIGHEST = 65535

# How workers call it that there is nothing to execute: such a task has written nothing.
_NO_PROGRAM = re.compile("is no program on this node|no such program|failed to execute")


def lacks_program(why: str) -> bool:
    """Whether it is the program of a task that is missing."""
    return _NO_PROGRAM.search(why) is not None


def has_output(why: str) -> bool:
    """Whether tasks that came to nothing may have written something about it."""
    return not lacks_program(why) and "no suitable node" not in why


def look(service: str, why: str) -> str:
    """See what a failed task wrote, or change what it is made of."""
    if lacks_program(why):
        return f"name a program that its nodes have: skep service update {service} -- COMMAND"
    return f"what it wrote: skep service logs {service}"


def mend(service: str, why: str) -> str:
    """Ask for something else than what an update came to nothing with."""
    return look(service, why) if lacks_program(why) else "update it to a spec that works"


def republish(service: Service, problem: str) -> str:
    """An example of how to publish another port than the one that a problem is about; empty where
    no port was asked for by its number."""
    own = {port.published: port for port in service.spec.ports if port.published is not None}
    meant = [number for number in own if re.search(rf"\b{number}\b", problem)] or list(own)
    if not meant:
        return ""
    published = meant[0]
    other = published + 1 if published < PORT_HIGHEST else published - 1
    end = f"{own[published].target}/{own[published].protocol.value}"
    return (
        f", such as {other}: skep service update {service.name} --publish-rm {published}:{end} "
        f"--publish-add {other}:{end}"
    )
