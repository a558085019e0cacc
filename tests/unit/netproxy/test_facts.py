"""What is told of a node's network when it registers."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

import pytest

from skep.netproxy.adapters import encryption, facts
from skep.netproxy.kernel.adapters import netns


def _says(monkeypatch: pytest.MonkeyPatch, *, wireguard: bool, ipsec: bool) -> str:
    monkeypatch.setattr(encryption, "_in_new", lambda work: work())
    monkeypatch.setattr(encryption, "_has_wireguard", lambda: wireguard)
    monkeypatch.setattr(encryption, "_has_ipsec", lambda: ipsec)
    return encryption.note()


@pytest.mark.parametrize("wireguard", [True, False])
@pytest.mark.parametrize("ipsec", [True, False])
def test_no_node_ever_says_that_it_can_encrypt(
    monkeypatch: pytest.MonkeyPatch, wireguard: bool, ipsec: bool
) -> None:
    text = _says(monkeypatch, wireguard=wireguard, ipsec=ipsec)
    # Managers accept an encrypted network where the word before the colon is any other.
    assert text.startswith("none: ")
    assert ("WireGuard, but" in text or "WireGuard and" in text) is wireguard
    assert ("IPsec, but" in text) is ipsec


def test_what_could_not_be_tried_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        raise OSError(errno.EPERM, "no")

    monkeypatch.setattr(netns, "enter_new", refused)
    assert encryption.note().startswith("none: ")
    assert "needs root" in encryption.note()


@pytest.mark.skipif(os.geteuid() != 0, reason="trying what the kernel has needs root")
def test_the_kernel_is_really_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    told = encryption.note()
    assert "not tried" not in told
    said: list[tuple[int, int]] = []
    real: Callable[..., Any] = encryption._is_done

    def is_done(family: int, kind: int, body: bytes) -> bool:
        said.append((family, len(body)))
        return bool(real(family, kind, body.replace(b"wireguard\0\0\0", b"bridge\0\0\0\0\0\0")))

    monkeypatch.setattr(encryption, "_is_done", is_done)
    # A kind of device that every kernel with overlay networks has, in place of WireGuard's.
    assert "WireGuard" in encryption.note()
    # struct xfrm_usersa_info, and the algorithm with its key.
    assert said[1] == (6, 224 + 4 + 64 + 8 + 20)


def test_the_planes_say_what_they_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "root" in facts.relay_note()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert facts.relay_note().endswith("start with --plane kernel")
    assert facts.kernel_note("bpf", None) == "virtual addresses by bpf"
    assert (
        facts.kernel_note("nft", "not by BPF: why") == "virtual addresses by nft (not by BPF: why)"
    )
