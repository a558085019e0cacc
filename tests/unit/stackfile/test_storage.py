"""Volumes, mounts, configs and secrets, read into the spec, or refused at their places."""

from __future__ import annotations

import pytest

from skep.domain.storage import ConfigSpec, FileUse, Mount, MountKind, SecretSpec
from tests.unit.stackfile.files import container, refused, told

TOP = """\
volumes:
  data:
  named: {name: shared, driver: nfs, driver_opts: {share: 'a:/b'}, labels: [x=y], x-movable: true}
  out: {external: true}
  older: {external: {name: other}}
  plain: {driver: local}
"""


def mounts(*lines: str) -> tuple[Mount, ...]:
    return told(container(*lines, top=TOP), HOME="/home/me").only.task.run.mounts


def volume(source: str, target: str, **more: object) -> Mount:
    return Mount(kind=MountKind.VOLUME, source=source, target=target, **more)  # type: ignore[arg-type]


def bind(source: str, target: str, **more: object) -> Mount:
    return Mount(kind=MountKind.BIND, source=source, target=target, **more)  # type: ignore[arg-type]


def memory(target: str, **more: object) -> Mount:
    return Mount(kind=MountKind.TMPFS, target=target, **more)  # type: ignore[arg-type]


NAMED = volume(
    "shared", "/c", driver="nfs", driver_options=(("share", "a:/b"),), labels=(("x", "y"),)
)
MOUNTS = [
    ("/c", volume("", "/c")),
    ("/c:ro", volume("", "/c", is_read_only=True)),
    ("data:/c", volume("shop_data", "/c")),
    ("data:/c:ro,nocopy", volume("shop_data", "/c", is_read_only=True, is_no_copy=True)),
    ("out:/c", volume("out", "/c")),
    ("older:/c", volume("other", "/c")),
    ("plain:/c", volume("shop_plain", "/c")),
    ("/a:/c", bind("/a", "/c")),
    ("/a/../b/:/c:rslave", bind("/b", "/c", propagation="rslave")),
    ("{type: volume, source: data, target: /c}", volume("shop_data", "/c")),
    ("{type: volume, target: /c}", volume("", "/c")),
    (
        "{type: volume, source: data, target: /c, volume: {nocopy: true, subpath: a/b}}",
        volume("shop_data", "/c", is_no_copy=True, subpath="a/b"),
    ),
    (
        "{type: bind, source: /a, target: /c, read_only: true, bind: {propagation: shared}}",
        bind("/a", "/c", is_read_only=True, propagation="shared"),
    ),
    (
        "{type: bind, source: /a, target: /c, bind: {create_host_path: true}}",
        bind("/a", "/c", creates_host_path=True),
    ),
    ("{source: data, target: /c, x-movable: true}", volume("shop_data", "/c", is_movable=True)),
    (
        "{type: tmpfs, target: /c, tmpfs: {size: 10485760, mode: 1770}}",
        memory("/c", size_bytes=10 * 2**20, mode=0o1770),
    ),
]


@pytest.mark.parametrize(("text", "expected"), MOUNTS)
def test_a_mount(text: str, expected: Mount) -> None:
    quoted = text if text.startswith("{") else f"'{text}'"
    assert mounts(f"volumes: [{quoted}]") == (expected,)


def test_a_volume_brings_what_it_is_made_with() -> None:
    (found,) = mounts("volumes: ['named:/c']")
    assert found.is_movable
    assert found == Mount(
        **{name: getattr(NAMED, name) for name in ("kind", "source", "target", "driver")},
        driver_options=NAMED.driver_options,
        labels=NAMED.labels,
        is_movable=True,
    )
    (found,) = mounts("volumes: [{source: named, target: /c, x-movable: false}]")
    assert found == NAMED


@pytest.mark.parametrize(
    ("source", "path"),
    [("./a", "/srv/a"), ("../a/b", "/a/b"), (".", "/srv"), ("~/a", "/home/me/a")],
)
def test_relative_paths_are_told(source: str, path: str) -> None:
    text = container(f"volumes: ['{source}:/c']")
    found = told(text, HOME="/home/me")
    assert found.only.task.run.mounts == (bind(path, "/c"),)
    assert found.warnings == (
        f"a.yml:5:15: {path} is a path of this machine: each node that runs a task needs it there",
    )


def test_volumes_may_have_templates_and_go_unused() -> None:
    found = told(
        container("volumes: ['d:/c']", top="volumes: {d: {name: 'd-{{.Task.Slot}}'}, e: }")
    )
    assert found.only.task.run.mounts == (volume("d-{{.Task.Slot}}", "/c"),)
    assert found.warnings == ("a.yml:6:42: no service has this volume, so it is not made",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/c", memory("/c")),
        ("/c:size=64m,mode=1777", memory("/c", size_bytes=2**26, mode=0o1777)),
        (
            "/c:ro,exec,uid=5",
            memory("/c", is_read_only=True, driver_options=(("exec", ""), ("uid", "5"))),
        ),
    ],
)
def test_memory(text: str, expected: Mount) -> None:
    assert mounts(f"tmpfs: '{text}'") == mounts(f"tmpfs: ['{text}']") == (expected,)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "volumes: ['datta:/c']",
            "a.yml:5:15: volume 'datta' is not under 'volumes:' of the file; did",
        ),
        ("volumes: ['x:/c']", "add it there, or write './x' for a folder"),
        ("volumes: ['data:c']", "a.yml:5:15: volumes: 'c' must start with /"),
        ("volumes: ['data:/']", "over a container's root"),
        (
            "volumes: ['data:/c', '/a:/c/']",
            "a.yml:5:26: volumes: something is mounted at /c already",
        ),
        ("volumes: ['data:/c:rw:x']", "is not understood"),
        ("volumes: ['data:/c:or']", "'or' is not an option of a mount"),
        ("volumes: ['data:/c:shared']", "'shared' is not an option of a mount"),
        (r"volumes: ['C:\x:/c']", "nodes run Linux"),
        (r"volumes: ['data:C:\x']", "nodes run Linux"),
        ("volumes: ['~/a:/c']", "HOME, which is not set"),
        ("volumes: [{type: npipe, source: a, target: /c}]", "pipes are Windows'"),
        (
            "volumes: [{type: cluster, source: a, target: /c}]",
            "a.yml:5:22: type 'cluster' is not there",
        ),
        ("volumes: [{type: image, source: a, target: /c}]", "not supported yet"),
        ("volumes: [{type: vol, source: a, target: /c}]", "type must be volume or bind or tmpfs"),
        ("volumes: [{type: bind, target: /c}]", "needs 'source'"),
        ("volumes: [{type: bind, source: /a}]", "a mount needs 'target'"),
        (
            "volumes: [{type: bind, source: /a, target: /c, volume: {nocopy: true}}]",
            "says nothing of",
        ),
        (
            "volumes: [{type: bind, source: /a, target: /c, bind: {propagation: x}}]",
            "propagation must be",
        ),
        ("volumes: [{type: tmpfs, source: a, target: /c}]", "memory has no source"),
        ("volumes: [{type: tmpfs, target: /c, tmpfs: {mode: 999}}]", "'999' is no mode of a file"),
        (
            "volumes: [{source: data, target: /c, volume: {subpath: ../a}}]",
            "must be within the volume",
        ),
        ("tmpfs: '/c:siez=5'", "'siez=5' is not an option of memory"),
        ("tmpfs: [/c, /c]", "something is mounted at /c already"),
    ],
)
def test_a_mount_is_refused(line: str, expected: str) -> None:
    (found,) = refused(container(line, top=TOP))
    assert expected in found


@pytest.mark.parametrize(
    ("top", "expected"),
    [
        ("{d: {external: true, driver: x}}", "a.yml:5:39: an external volume is there already"),
        ("{d: {drivre: x}}", "unknown key 'drivre' in a volume; did you mean 'driver'?"),
        ("{d: {name: 'a b'}}", "'a b' can't be a volume's name"),
        ("{d: x}", "d must be a map, but this is 'x'"),
        ("[d]", "volumes must be a map"),
    ],
)
def test_a_volume_is_refused(top: str, expected: str) -> None:
    assert expected in refused(container(top=f"volumes: {top}"))[0]


# --------------------------------------------------------------------------- configs, secrets

FILES = """\
configs:
  site: {file: ./site.conf, labels: {a: b}}
  greet: {content: "hello ${WHO}\\n", name: greeting}
  there: {external: true}
  older: {external: {name: other}}
secrets:
  key: {environment: KEY}
  file: {file: /srv/site.conf}
  outer: {external: true, name: outer-key}
"""


def test_configs_and_secrets_and_what_is_made_of_them() -> None:
    lines = (
        "configs: [site, {source: greet, target: /etc/greet, uid: '5', gid: 6, mode: 0440}, there]",
        "secrets: [key, {source: outer, target: deep/key}, file]",
    )
    found = told(container(*lines, top=FILES), WHO="you", KEY="k")
    run = found.only.task.run
    assert run.configs == (
        FileUse(name="shop_site", target="site"),
        FileUse(name="greeting", target="/etc/greet", uid="5", gid="6", mode=0o440),
        FileUse(name="there", target="there"),
    )
    assert run.secrets == (
        FileUse(name="shop_key", target="key"),
        FileUse(name="outer-key", target="deep/key"),
        FileUse(name="shop_file", target="file"),
    )
    assert found.read.configs == (
        ConfigSpec(name="greeting", data=b"hello you\n"),
        ConfigSpec(name="shop_site", data=b"listen 80;\n", labels=(("a", "b"),)),
    )
    assert found.read.secrets == (
        SecretSpec(name="shop_file", data=b"listen 80;\n"),
        SecretSpec(name="shop_key", data=b"k"),
    )
    assert found.read.file_places == {
        ("config", "greeting"): "a.yml:9:3",
        ("config", "shop_site"): "a.yml:8:3",
        ("secret", "shop_file"): "a.yml:14:3",
        ("secret", "shop_key"): "a.yml:13:3",
    }
    assert found.warnings == ()


def test_what_no_service_uses_is_not_made() -> None:
    found = told(container(top=FILES), WHO="you", KEY="k")
    assert (found.read.configs, found.read.secrets) == ((), ())
    assert found.warnings == (
        "a.yml:6:3: no service uses this config, so it is not made",
        "a.yml:7:3: no service uses this config, so it is not made",
        "a.yml:11:3: no service uses this secret, so it is not made",
        "a.yml:12:3: no service uses this secret, so it is not made",
    )


@pytest.mark.parametrize("mode", ["0440", "440", "0o440", "'0440'"])
def test_modes_are_octal(mode: str) -> None:
    text = container(f"configs: [{{source: c, mode: {mode}}}]", top="configs: {c: {content: x}}")
    assert told(text).only.task.run.configs[0].mode == 0o440


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("configs: [sit]", "a.yml:5:15: config 'sit' is not under 'configs:' of the file; did you"),
        ("secrets: [site]", "secret 'site' is not under 'secrets:'"),
        ("configs: [{target: /a}]", "'source' is missing"),
        ("configs: [{source: site, uid: me}]", "'me' is not a whole number"),
        ("configs: [{source: site, mode: '888'}]", "'888' is no mode of a file"),
        (
            "configs: [site, {source: greet, target: site}]",
            "there is something else at /site already",
        ),
        ("configs: [{source: site, target: ../a}]", "is not the path of a file"),
        (
            "secrets: [{source: key, target: /etc/a}]\n    tmpfs: /etc/a",
            "secrets: there is something else at /etc/a already",
        ),
    ],
)
def test_a_use_is_refused(line: str, expected: str) -> None:
    found = refused(container(line, top=FILES), WHO="you", KEY="k")
    assert expected in found[0]
    assert len(found) == 1


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("{}", "'c' needs one of 'file', 'content' and 'environment', or 'external: true'"),
        ("{file: site.conf, content: x}", "and only one"),
        ("{file: none}", "a.yml:5:21: /srv/none: No such file"),
        ("{file: empty}", "'c' is empty"),
        ("{file: large}", "has 1024001 bytes, but a config may have no more than 1024000"),
        ("{environment: NO}", "variable 'NO' is not set"),
        ("{external: true, file: site.conf}", "an external config is there already, and 'file'"),
        ("{content: x, template_driver: golang}", "'template_driver' is not supported yet; put"),
        ("{content: x, name: 'a b'}", "'a b' can't be a name"),
        ("x", "c must be a map, but this is 'x'"),
    ],
)
def test_a_config_is_refused(config: str, expected: str) -> None:
    (found,) = refused(container(top=f"configs: {{c: {config}}}"))
    assert expected in found


def test_a_secret_may_be_smaller_than_a_config() -> None:
    (found,) = refused(container(top="secrets: {c: {file: large}}"))
    assert "but a secret may have no more than 512000" in found
