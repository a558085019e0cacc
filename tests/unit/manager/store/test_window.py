"""The window of changes: everything since a version, or the plain word that it is gone."""

from __future__ import annotations

from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from skep.domain.control import WatchAction
from skep.manager.store.core import window as module
from skep.manager.store.core.command import Change
from skep.manager.store.core.window import ChangeWindow
from tests.unit.manager.build import node


def commit(version: int, count: int = 1) -> list[Change]:
    return [Change(version, WatchAction.CREATE, node(f"n{n}"), None) for n in range(count)]


def test_a_watcher_gets_what_came_after_it() -> None:
    window = ChangeWindow()
    for version in (3, 5, 9):
        window.add(version, commit(version))
    assert [c.version for c in window.since(0) or ()] == [3, 5, 9]
    assert [c.version for c in window.since(3) or ()] == [5, 9]
    assert [c.version for c in window.since(4) or ()] == [5, 9]
    assert window.since(9) == []
    assert window.since(1000) == []


def test_a_snapshot_is_a_new_beginning() -> None:
    window = ChangeWindow()
    window.add(3, commit(3))
    window.reset(7)
    assert window.since(6) is None
    assert window.since(7) == []
    window.add(8, commit(8))
    assert window.since(7) == commit(8)


@settings(deadline=None)
@given(st.lists(st.integers(0, 12), max_size=20))
def test_whole_commits_are_kept_and_never_fewer_than_promised(sizes: list[int]) -> None:
    with mock.patch.object(module, "WINDOW_CHANGES", 30):
        window = ChangeWindow()
        everything: list[Change] = []
        for version, size in enumerate(sizes, start=1):
            window.add(version, commit(version, size))
            everything += commit(version, size)
        for version in range(len(sizes) + 1):
            wanted = [change for change in everything if change.version > version]
            found = window.since(version)
            if found is None:
                assert len(wanted) >= module.WINDOW_CHANGES
            else:
                assert found == wanted
