"""What an update's status means to a person. Pure."""

from __future__ import annotations

import re

from skep.domain.objects import Service, UpdateState, UpdateStatus

BY_HAND = "manually requested rollback"

_WHOLE = re.compile(r"rollback completed \((.*)\)(; slots that failed: [0-9, .]+)?", re.DOTALL)
# What the state says already.
_STATE = re.compile(
    "(update in progress|update completed|update paused|update rolled back|rollback completed"
    "|rollback paused)[;:]? *(due to +)?"
)


def reason(update: UpdateStatus) -> str:
    """Why an update is as it is, without what its state says as well; empty if that is all."""
    return reason_in(update.message)


def reason_in(message: str) -> str:
    """The reason in the message of an update's status."""
    text = message
    if found := _WHOLE.fullmatch(text):
        text = found[1] + (found[2] or "")
    found = _STATE.match(text)
    return text[found.end() :] if found else text


def is_by_hand(update: UpdateStatus) -> bool:
    """Whether a rollback is what a person asked for."""
    return reason(update).startswith(BY_HAND)


def is_newest_word(service: Service) -> bool:
    """Whether nobody has changed or scaled a service since its rollback began, which made a
    revision of its own."""
    return service.update is not None and service.update.revision + 1 == service.revision


def is_rolled_back(service: Service) -> bool:
    """Whether the cluster has given up what was asked for last, and the spec before it is true."""
    update = service.update
    return (
        update is not None
        and update.state is UpdateState.ROLLBACK_COMPLETED
        and is_newest_word(service)
        and not is_by_hand(update)
    )
