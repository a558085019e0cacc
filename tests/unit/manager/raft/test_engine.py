"""PySyncObj: exactly the pinned one, and nothing of it that could unpickle or wait."""

from __future__ import annotations

import pysyncobj.syncobj
import pytest

from skep.manager.raft.adapters import engine
from skep.manager.raft.adapters.stand_ins import NoPickle
from skep.manager.raft.core import codec
from skep.manager.raft.core.log import COMMAND, NOTHING


def test_the_installed_engine_is_the_pinned_one() -> None:
    engine.self_check()


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "VERSION", "0.3.18")
    with pytest.raises(engine.EngineMismatch, match=r"0\.3\.18"):
        engine.self_check()


@pytest.mark.parametrize("name", engine.PINNED_SOURCES)
def test_other_sources_are_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(engine.PINNED_SOURCES, name, "0" * 64)
    with pytest.raises(engine.EngineMismatch, match=name):
        engine.self_check()


def test_a_missing_private_name_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "PRIVATE_METHODS", ("_SyncObj__gone",))
    with pytest.raises(engine.EngineMismatch, match="_SyncObj__gone"):
        engine.self_check()


def test_the_shared_module_is_not_patched() -> None:
    before = dict(vars(pysyncobj.syncobj))
    copy = engine._private_copy()
    copy.random = object()  # type: ignore[attr-defined]
    assert copy is not pysyncobj.syncobj
    assert dict(vars(pysyncobj.syncobj)) == before


def test_the_engines_numbers_are_the_ones_we_use() -> None:
    types = engine._private_copy()._COMMAND_TYPE
    assert (bytes([types.REGULAR]), bytes([types.NO_OP])) == (COMMAND, NOTHING)
    assert pysyncobj.FAIL_REASON.SUCCESS == 0


def test_pickle_is_out_of_reach() -> None:
    with pytest.raises(AssertionError, match=r"pickle\.loads"):
        NoPickle().loads(b"")


def test_no_command_is_big_enough_to_be_cut_up_by_the_engine() -> None:
    from skep.manager.raft.core.model import Settings

    assert Settings().command_limit_bytes + 1 < engine.APPEND_BYTES
    assert engine.APPEND_BYTES + Settings().command_limit_bytes < codec.FRAME_LIMIT_BYTES
