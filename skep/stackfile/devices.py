"""Devices, and limits of what a container may use of its node."""

from __future__ import annotations

import functools
from typing import Any

from skep.domain.container import BlockLimit, Device, DeviceRequest, Ulimit
from skep.domain.validate_container import BLOCK_RATES, BLOCK_WEIGHT
from skep.stackfile import keys, values
from skep.stackfile.reader import Place

_INT64_MAX = 2**63 - 1
_GPU = "gpu"
ALL = -1


def read_ulimits(place: Place) -> tuple[Ulimit, ...]:
    """Limits by name: one number, or a soft and a hard one."""
    found: list[Ulimit] = []
    for key, at in place.entries():
        found += at.several(functools.partial(_ulimit, key.text))
    return tuple(found)


def _ulimit(name: str, place: Place) -> list[Ulimit]:
    if place.is_scalar:
        both = place.integer(-1, _INT64_MAX)
        return [Ulimit(name=name, soft=both, hard=both)]
    fields = place.fields(keys.ULIMIT)
    if "soft" not in fields or "hard" not in fields:
        raise place.error(f"limit '{name[:40]}' needs 'soft' and 'hard', or one number for both")
    soft, hard = (
        fields.read(key, lambda at: at.integer(-1, _INT64_MAX), -1) for key in ("soft", "hard")
    )
    return [Ulimit(name=name, soft=soft, hard=hard)]


def read_devices(place: Place) -> tuple[Device, ...]:
    """Devices of the node, such as "/dev/ttyUSB0:/dev/ttyUSB0:rw"."""
    found: list[Device] = []
    for item in place.items():
        found += item.several(_device)
    return tuple(found)


def _device(place: Place) -> list[Device]:
    if place.is_scalar:
        return [place.parsed(short_device)]
    fields = place.fields(keys.DEVICE)
    if "source" not in fields:
        raise place.error("a device needs 'source', its path on the node")
    return [
        Device(
            source=fields.read("source", Place.text, ""),
            target=fields.read("target", Place.text, ""),
            permissions=fields.read("permissions", Place.text, "rwm"),
        )
    ]


def short_device(text: str) -> Device:
    """A device in "/dev/sda", "/dev/sda:/dev/xvda", "/dev/sda:/dev/xvda:r" or "/dev/sda:r", or the
    name of a CDI device. Raises BadValue."""
    if not text.startswith("/"):
        if "=" not in text:
            raise values.BadValue(f"'{text[:60]}' is no device; write one like '/dev/ttyUSB0'")
        return Device(source=text)
    source, *rest = text.split(":")
    if len(rest) > 2:
        raise values.BadValue(f"'{text[:60]}' has more than a path, a target and permissions")
    if len(rest) == 1 and not rest[0].startswith("/"):
        return Device(source=source, permissions=rest[0])
    target = rest[0] if rest and rest[0] != source else ""
    return Device(source=source, target=target, permissions=rest[1] if len(rest) > 1 else "rwm")


def read_gpus(place: Place) -> tuple[DeviceRequest, ...]:
    """`gpus`: "all", or the same as reservations of devices that can at least be a GPU."""
    if place.is_scalar:
        if place.text().strip() != "all":
            raise place.error("gpus must be 'all' or a list")
        return (DeviceRequest(count=ALL, capabilities=(_GPU,)),)
    found: list[DeviceRequest] = []
    for item in place.items():
        found += item.several(functools.partial(_request, (_GPU,)))
    return tuple(found)


def read_requests(place: Place) -> tuple[DeviceRequest, ...]:
    """`deploy.resources.reservations.devices`."""
    found: list[DeviceRequest] = []
    for item in place.items():
        found += item.several(functools.partial(_request, ()))
    return tuple(found)


def _request(least: tuple[str, ...], place: Place) -> list[DeviceRequest]:
    fields = place.fields(keys.DEVICES)
    none: tuple[str, ...] = ()
    capabilities = fields.read("capabilities", Place.texts, none)
    if not capabilities and not least:
        raise place.error("a reservation of devices needs 'capabilities', such as [gpu]")
    ids = fields.read("device_ids", Place.texts, none)
    count = fields.read("count", _count, None)
    if ids and count is not None:
        raise fields["count"].error("count and device_ids exclude each other; remove one")
    return [
        DeviceRequest(
            driver=fields.read("driver", Place.text, ""),
            count=ALL if count is None and not ids else count,
            device_ids=ids,
            capabilities=tuple(dict.fromkeys((*capabilities, *least))),
            options=fields.read("options", Place.labels, ()),
        )
    ]


def _count(place: Place) -> int:
    return ALL if place.text().strip() == "all" else place.integer(ALL, 2**31 - 1)


def read_block_io(place: Place) -> dict[str, Any]:
    """`blkio_config`, by the fields of a ContainerSpec."""
    fields = place.fields(keys.BLKIO)
    found: dict[str, Any] = {}
    if "weight" in fields:
        found["block_weight"] = fields.read("weight", _weight, None)
    limits: list[BlockLimit] = []
    for kind in (BLOCK_WEIGHT, *BLOCK_RATES):
        at = fields.get(kind)
        if at is None:
            continue
        for item in at.several(Place.items):
            limits += item.several(functools.partial(_block_limit, kind))
    return found | {"block_limits": tuple(limits)}


def _weight(place: Place) -> int | None:
    return place.integer(0, 1000) or None


def _block_limit(kind: str, place: Place) -> list[BlockLimit]:
    is_weight = kind == BLOCK_WEIGHT
    name = "weight" if is_weight else "rate"
    fields = place.fields(keys.BLKIO_WEIGHT if is_weight else keys.BLKIO_RATE)
    if "path" not in fields or name not in fields:
        raise place.error(f"{kind} needs 'path' and '{name}'")
    if is_weight:
        rate = fields.read(name, lambda at: at.integer(10, 1000), None)
    else:
        rate = fields.read(name, lambda at: at.parsed(values.size_bytes), None)
    path = fields.read("path", Place.text, "")
    return [] if rate is None else [BlockLimit(kind=kind, path=path, rate=rate)]
