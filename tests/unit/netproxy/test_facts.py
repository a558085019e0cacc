"""What is told of a node's network when it registers."""

from __future__ import annotations

import os

import pytest

from skep.domain.notes import can_encrypt
from skep.netproxy.adapters import facts


def test_the_planes_say_what_they_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    notes = dict(facts.relay_notes())
    assert all("root" in note for note in notes.values())
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    notes = dict(facts.relay_notes())
    assert notes["network.encryption"] == "none: it is in user space; start with --plane kernel"
    assert notes["network.plane"].endswith("start with --plane kernel")
    assert not can_encrypt(facts.relay_notes())


def test_the_kernel_plane_says_by_what_means() -> None:
    can = (("network.encryption", "wireguard by the kernel"), ("network.wireguard-key", "k"))
    notes = facts.kernel_notes("bpf", None, can)
    assert notes == (*can, ("network.plane", "virtual addresses by bpf"))
    notes = facts.kernel_notes("nft", "not by BPF: why", ())
    assert notes == (("network.plane", "virtual addresses by nft (not by BPF: why)"),)
