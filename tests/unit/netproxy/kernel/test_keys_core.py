"""WireGuard's keys, by the test vectors of RFC 7748, section 5.2."""

from __future__ import annotations

import pytest

from skep.netproxy.kernel.core.keys import clamped, multiplied, parse_key, public_key, text_of

BASE = (9).to_bytes(32, "little")
SCALAR = bytes.fromhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4")
POINT = bytes.fromhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")
PRODUCT = "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"


def test_one_product() -> None:
    assert multiplied(SCALAR, POINT).hex() == PRODUCT


@pytest.mark.parametrize(
    ("times", "result"),
    [
        (1, "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"),
        (1000, "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"),
    ],
)
def test_products_of_products(times: int, result: str) -> None:
    scalar, point = BASE, BASE
    for _ in range(times):
        scalar, point = multiplied(scalar, point), scalar
    assert scalar.hex() == result


def test_a_private_key_is_told_as_a_device_tells_it() -> None:
    assert clamped(b"\xff" * 32) == b"\xf8" + b"\xff" * 30 + b"\x7f"
    assert clamped(bytes(32)) == bytes(31) + b"\x40"
    assert clamped(clamped(SCALAR)) == clamped(SCALAR)
    assert public_key(SCALAR) == public_key(clamped(SCALAR)) == multiplied(SCALAR, BASE)


@pytest.mark.parametrize(
    "text", ["", "abc", "?" * 44, text_of(b"short"), text_of(bytes(33)), "\N{SNOWMAN}"]
)
def test_what_is_no_key(text: str) -> None:
    assert parse_key(text) is None


def test_keys_are_told_in_base64() -> None:
    assert len(text_of(SCALAR)) == 44
    assert parse_key(text_of(SCALAR)) == SCALAR
