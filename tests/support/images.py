"""Images made by hand, so that tests need no registry in the world: as blobs for a registry of
ours, and as an archive for `docker load`."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BUSYBOX = Path("/usr/bin/busybox")
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
MANIFEST_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_TOOLS = ("sh", "sleep", "cat", "echo", "true", "false", "seq", "env", "ls", "id", "head", "dd")


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass(frozen=True)
class Image:
    """One image: its blobs by their digests, its manifest, and its layers as they are unpacked."""

    blobs: dict[str, bytes]
    manifest: bytes
    config: bytes
    layers: tuple[bytes, ...]

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)

    @property
    def id(self) -> str:
        """What an engine calls it."""
        return digest_of(self.config)

    def archive(self, tag: str) -> bytes:
        """What `docker load` takes."""
        out = io.BytesIO()
        names = [f"{number}.tar" for number in range(len(self.layers))]
        manifest = [{"Config": "config.json", "RepoTags": [tag], "Layers": names}]
        with tarfile.open(fileobj=out, mode="w") as tar:
            _add(tar, "manifest.json", json.dumps(manifest).encode())
            _add(tar, "config.json", self.config)
            for name, layer in zip(names, self.layers, strict=True):
                _add(tar, name, layer)
        return out.getvalue()


def make_image(*files: dict[str, bytes], architecture: str = "amd64", **config: Any) -> Image:
    """An image with a layer for each of `files` (path to content) over one with busybox; `config`
    is what an image says of its containers: Cmd, Healthcheck, ExposedPorts ..."""
    layers = (_tools(), *(_layer(each) for each in files))
    packed = [gzip.compress(layer, compresslevel=1, mtime=0) for layer in layers]
    body = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Cmd": ["sh"], **config},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
        "history": [{"created": "2026-01-01T00:00:00Z"} for _ in layers],
        "created": "2026-01-01T00:00:00Z",
    }
    encoded = json.dumps(body).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _described(_CONFIG, encoded),
        "layers": [_described(_LAYER, each) for each in packed],
    }
    blobs = {digest_of(each): each for each in (encoded, *packed)}
    return Image(blobs, json.dumps(manifest).encode(), encoded, layers)


def list_of(image: Image, architecture: str) -> bytes:
    """A manifest list that has this image for one architecture alone."""
    entry = {
        "mediaType": MANIFEST,
        "size": len(image.manifest),
        "digest": image.digest,
        "platform": {"architecture": architecture, "os": "linux"},
    }
    body = {"schemaVersion": 2, "mediaType": MANIFEST_LIST, "manifests": [entry]}
    return json.dumps(body).encode()


def _described(media_type: str, data: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "size": len(data), "digest": digest_of(data)}


def _tools() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for folder in ("bin", "tmp", "dev", "proc", "sys", "etc"):
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(info)
        _add(tar, "bin/busybox", BUSYBOX.read_bytes(), 0o755)
        for name in _TOOLS:
            info = tarfile.TarInfo(f"bin/{name}")
            info.type, info.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(info)
    return out.getvalue()


def _layer(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, content in files.items():
            _add(tar, path, content)
    return out.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), mode
    tar.addfile(info, io.BytesIO(content))
