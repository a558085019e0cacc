"""What a node says of how it encrypts, by what its machine has."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable

import pytest

from skep.domain.notes import can_encrypt
from skep.netproxy.kernel.adapters import netns, wireguard
from skep.netproxy.kernel.adapters.wireguard import Encryption
from skep.netproxy.kernel.core.keys import public_key, text_of

KEY = b"\x08" * 31 + b"\x40"


def trying(
    monkeypatch: pytest.MonkeyPatch, *, kernel: int = 0, tun: int = 0, program: str | None = None
) -> Encryption:
    """What comes of it where both trials end with these error numbers, 0 for none."""
    ends = iter((kernel, tun))

    def in_thread(_: Callable[[], None]) -> None:
        if number := next(ends):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(netns, "in_thread", in_thread)
    monkeypatch.setattr(shutil, "which", lambda _: program)
    driver, hindrance = wireguard.tried()
    return Encryption(driver, KEY, hindrance)


def test_the_kernel_s_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    found = trying(monkeypatch, program="/usr/bin/wireguard-go")
    key = ("network.wireguard-key", text_of(public_key(KEY)))
    assert found.notes() == (("network.encryption", "wireguard by the kernel"), key)
    assert can_encrypt(found.notes())


def test_a_kernel_without_it_leaves_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    found = trying(monkeypatch, kernel=errno.EOPNOTSUPP, program="/usr/bin/wireguard-go")
    assert found.note == "wireguard by wireguard-go"


@pytest.mark.parametrize(
    ("kernel", "tun", "program", "why"),
    [
        (
            errno.EOPNOTSUPP,
            0,
            None,
            "the kernel has no WireGuard, and the program wireguard-go isn't installed; "
            "apt-get install wireguard-go, and start again",
        ),
        (
            errno.EOPNOTSUPP,
            errno.ENOENT,
            "/usr/bin/wireguard-go",
            "the kernel has no WireGuard, and wireguard-go has no use of /dev/net/tun "
            "(No such file or directory)",
        ),
        (errno.EPERM, 0, None, "that needs root"),
    ],
)
def test_a_node_that_can_not_says_why_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, kernel: int, tun: int, program: str | None, why: str
) -> None:
    found = trying(monkeypatch, kernel=kernel, tun=tun, program=program)
    assert found.notes() == (("network.encryption", f"none: {why}"),)
    assert found.public_key is None
    assert not can_encrypt(found.notes())
