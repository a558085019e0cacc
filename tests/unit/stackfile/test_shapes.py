"""Every key that is read refuses what has not its shape, at the very place of the value."""

from __future__ import annotations

import pytest

from skep.stackfile import keys
from tests.unit.stackfile.files import refused, told

# Each key with a value that is right. What is indented by names is where it stands.
SCALARS = {
    "image": "x",
    "working_dir": "/",
    "user": "me",
    "platform": "linux",
    "stop_signal": "TERM",
    "stop_grace_period": "1s",
    "x-engine": "process",
    "cpus": "1",
    "mem_limit": "1g",
    "mem_reservation": "1g",
    "pids_limit": "1",
    "scale": "1",
    "restart": "always",
    "healthcheck.interval": "1s",
    "healthcheck.timeout": "1s",
    "healthcheck.retries": "1",
    "healthcheck.start_period": "1s",
    "healthcheck.start_interval": "1s",
    "healthcheck.disable": "false",
    "logging.driver": "local",
    "logging.options.max-size": "1m",
    "logging.options.max-file": "1",
    "deploy.mode": "replicated",
    "deploy.replicas": "1",
    "deploy.endpoint_mode": "vip",
    "deploy.resources.limits.cpus": "1",
    "deploy.resources.limits.memory": "1g",
    "deploy.resources.limits.pids": "1",
    "deploy.resources.reservations.cpus": "1",
    "deploy.resources.reservations.memory": "1g",
    "deploy.restart_policy.condition": "any",
    "deploy.restart_policy.delay": "1s",
    "deploy.restart_policy.max_attempts": "1",
    "deploy.restart_policy.window": "1s",
    "deploy.placement.max_replicas_per_node": "1",
    **{
        f"deploy.{policy}.{key}": value
        for policy in ("update_config", "rollback_config")
        for key, value in {
            "parallelism": "1",
            "delay": "1s",
            "monitor": "1s",
            "failure_action": "pause",
            "max_failure_ratio": "0.5",
            "order": "stop-first",
            "x-healthy-deadline": "1s",
        }.items()
    },
}
LISTS = (
    "ports",
    "expose",
    "profiles",
    "deploy.placement.constraints",
    "deploy.placement.preferences",
)
MAPS = (
    "healthcheck",
    "logging",
    "logging.options",
    "deploy",
    "deploy.resources",
    "deploy.resources.limits",
    "deploy.resources.reservations",
    "deploy.restart_policy",
    "deploy.placement",
    "deploy.update_config",
    "deploy.rollback_config",
)
# Those that have two shapes, with one that they have not.
BOTH = {
    "command": "{a: b}",
    "entrypoint": "{a: b}",
    "environment": "a",
    "labels": "a",
    "deploy.labels": "a",
    "networks": "a",
    "healthcheck.test": "{a: b}",
}
# Words that YAML 1.1 takes for truths and numbers of other bases, and what is empty.
ODD = ("yes", "True", "0o17", "0x1F", "1_000", "22:22", "1e2", "-1", ".inf", "''", "' '")


def with_value(path: str, value: str) -> tuple[str, str]:
    """A file with the value at a path, and the value's place."""
    names = path.split(".")
    test = ", test: x" if path.startswith("healthcheck.") and names[-1] != "test" else ""
    line = "    " + "{".join(f"{name}: " for name in names)
    command = "" if path == "command" else "    command: x\n"
    closed = test + "}" * (len(names) - 1)
    return f"services:\n  a:\n{line}{value}{closed}\n{command}", f"a.yml:3:{len(line) + 1}: "


def test_every_key_is_tried() -> None:
    tried = {path.rpartition(".")[2] for path in (*SCALARS, *LISTS, *MAPS, *BOTH)}
    tried |= keys.PORT.supported | keys.PORT.extensions | {"spread"}
    # Of networks, containers and files of variables there are tests of their own.
    apart = (
        *(keys.TOP, keys.NETWORK, keys.NETWORK_USE, keys.EXTERNAL, keys.IPAM, keys.SUBNET),
        *(keys.DEVICES, keys.ENV_FILE, keys.ULIMIT, keys.DEVICE, keys.BLKIO, keys.BLKIO_WEIGHT),
        *(keys.BLKIO_RATE, keys.MOUNT, keys.BIND, keys.MOUNT_VOLUME, keys.TMPFS, keys.VOLUME),
        *(keys.CONFIG, keys.SECRET, keys.FILE_USE),
    )
    tried |= keys.PROXY_PROTOCOL.supported | {"env_file"}
    sections = [value for value in vars(keys).values() if isinstance(value, keys.Section)]
    for section in sections:
        if section.name not in {one.name for one in apart}:
            assert section.supported | section.extensions <= tried, section.name


@pytest.mark.parametrize("path", SCALARS)
def test_a_scalar_key(path: str) -> None:
    assert told(with_value(path, SCALARS[path])[0])
    assert told(with_value(path, f"'{SCALARS[path]}'")[0])
    assert told(with_value(path, "null")[0]) == told(with_value(path, "~")[0])
    for value, kind in (("[a]", "a list"), ("{a: b}", "a map"), ("[]", "a list")):
        text, place = with_value(path, value)
        found = refused(text)
        name = path.rpartition(".")[2]
        assert found == [f"{place}{name} must be text, but this is {kind}"]


@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize("path", [path for path in SCALARS if path.startswith("deploy.")])
def test_a_number_or_a_word_is_no_odd_one(path: str, value: str) -> None:
    text, place = with_value(path, value)
    (line,) = refused(text)
    assert line.startswith(place)


@pytest.mark.parametrize("path", LISTS)
def test_a_list_key(path: str) -> None:
    assert told(with_value(path, "[]")[0])
    for value in ("a", "{a: b}", "yes", "1"):
        text, place = with_value(path, value)
        assert refused(text)[0].startswith(f"{place}{path.rpartition('.')[2]} must be a list, but")
    for value in ("[null]", "[[a]]"):
        text, place = with_value(path, value)
        line = place.replace(place.split(":")[2], str(int(place.split(":")[2]) + 1))
        assert refused(text)[0].startswith(line)


@pytest.mark.parametrize("path", MAPS)
def test_a_map_key(path: str) -> None:
    for value in ("a", "[a]", "yes", "1", "[]"):
        text, place = with_value(path, value)
        (line,) = refused(text)
        assert line.startswith(f"{place}{path.rpartition('.')[2]} must be a map, but this is ")


@pytest.mark.parametrize("path", BOTH)
def test_a_key_of_two_shapes(path: str) -> None:
    text, place = with_value(path, BOTH[path])
    assert refused(text)[0].startswith(f"{place}{path.rpartition('.')[2]} must be a ")


@pytest.mark.parametrize("key", sorted(keys.PORT.supported | keys.PORT.extensions))
def test_a_ports_key(key: str) -> None:
    target = "" if key == "target" else "target: 80, "
    text, _ = with_value("ports", f"[{{{target}{key}: [a]}}]")
    (line,) = refused(text)
    column = text.splitlines()[2].index("[a]") + 1
    shape = "a map" if key == "x-proxy-protocol" else "text"
    assert line == f"a.yml:3:{column}: {key} must be {shape}, but this is a list"
