"""Whoever runs the tests must not be seen in them: nohup and background jobs ignore signals, and
the engine takes care to undo that in its tasks, in other words than it uses otherwise."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

_OFTEN_IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTTOU)


@pytest.fixture(autouse=True)
def no_ignored_signals() -> Iterator[None]:
    ignored = [one for one in _OFTEN_IGNORED if signal.getsignal(one) is signal.SIG_IGN]
    for one in ignored:
        signal.signal(one, signal.SIG_DFL)
    yield
    for one in ignored:
        signal.signal(one, signal.SIG_IGN)
