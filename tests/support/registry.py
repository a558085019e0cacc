"""A registry of images, as small as Docker Engine lets it be, that can be as bad as real ones.

It speaks the read half of the distribution protocol on 127.0.0.1, which engines trust without TLS.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from tests.support.images import MANIFEST, MANIFEST_LIST, Image, digest_of, list_of

TOKEN = "a-token-of-this-registry"
_PIECE = 64 * 1024


@dataclass
class Registry:
    """What it has, how it behaves, and what it was asked.

    `auth` is "" for anybody, "basic", or "token" (which sends clients to fetch one with their
    login). `fail_status` answers everything; `bytes_per_s` slows blobs down; `is_hung` answers
    nothing until the registry is closed.
    """

    auth: str = ""
    users: dict[str, str] = field(default_factory=dict)
    fail_status: int = 0
    fail_body: str = ""
    bytes_per_s: float | None = None
    is_hung: bool = False
    port: int = 0
    asked: list[str] = field(default_factory=list)
    sending: int = 0
    """Blobs under way."""
    _manifests: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)
    _blobs: dict[str, bytes] = field(default_factory=dict)
    _closing: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def server(self) -> str:
        return f"127.0.0.1:{self.port}"

    def put(self, repository: str, tag: str, image: Image) -> str:
        """Have an image; returns its name."""
        self._blobs.update(image.blobs)
        for reference in (tag, image.digest):
            self._manifests[repository, reference] = (MANIFEST, image.manifest)
        return f"{self.server}/{repository}:{tag}"

    def put_list(self, repository: str, tag: str, image: Image, architecture: str) -> str:
        """Have an image that is for one architecture alone, and says so."""
        name = self.put(repository, f"{tag}-{architecture}", image)
        body = list_of(image, architecture)
        for reference in (tag, digest_of(body)):
            self._manifests[repository, reference] = (MANIFEST_LIST, body)
        return f"{name.rpartition(':')[0]}:{tag}"

    def count(self, part: str) -> int:
        """How many requests had this in their paths."""
        return sum(part in each for each in self.asked)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.path}")
        if self.is_hung:
            await self._closing.wait()
        if self.fail_status:
            return web.Response(status=self.fail_status, text=self.fail_body)
        if request.path == "/token":
            return self._give_token(request)
        if (refusal := self._refuse(request)) is not None:
            return refusal
        if request.path in ("/v2", "/v2/"):
            return web.json_response({})
        repository, kind, reference = request.path.removeprefix("/v2/").rsplit("/", 2)
        if kind == "manifests":
            return self._manifest(request, repository, reference)
        blob = self._blobs.get(reference)
        if blob is None:
            return _error(404, "BLOB_UNKNOWN", "blob unknown to registry")
        return await self._blob(request, reference, blob)

    def _manifest(self, request: web.Request, repository: str, reference: str) -> web.Response:
        found = self._manifests.get((repository, reference))
        if found is None:
            return _error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        media_type, body = found
        headers = {"Docker-Content-Digest": digest_of(body), "Content-Type": media_type}
        return web.Response(body=body, headers=headers)

    async def _blob(self, request: web.Request, reference: str, blob: bytes) -> web.StreamResponse:
        headers = {"Docker-Content-Digest": reference, "Content-Type": "application/octet-stream"}
        if self.bytes_per_s is None or request.method == "HEAD":
            return web.Response(body=blob, headers=headers)
        response = web.StreamResponse(headers={**headers, "Content-Length": str(len(blob))})
        self.sending += 1
        try:
            await response.prepare(request)
            for place in range(0, len(blob), _PIECE):
                piece = blob[place : place + _PIECE]
                await response.write(piece)
                await asyncio.sleep(len(piece) / self.bytes_per_s)
        finally:
            self.sending -= 1
        return response

    def _login(self, request: web.Request) -> str | None:
        scheme, _, words = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Basic":
            return None
        user, _, password = base64.b64decode(words).decode().partition(":")
        return user if self.users.get(user) == password else None

    def _give_token(self, request: web.Request) -> web.Response:
        if self._login(request) is None:
            return _error(401, "UNAUTHORIZED", "incorrect username or password")
        return web.json_response({"token": TOKEN, "access_token": TOKEN, "expires_in": 300})

    def _refuse(self, request: web.Request) -> web.Response | None:
        if self.auth == "basic" and self._login(request) is None:
            challenge = 'Basic realm="tests"'
        elif self.auth == "token" and request.headers.get("Authorization") != f"Bearer {TOKEN}":
            challenge = f'Bearer realm="http://{self.server}/token",service="tests"'
        else:
            return None
        refusal = _error(401, "UNAUTHORIZED", "authentication required")
        refusal.headers["WWW-Authenticate"] = challenge
        return refusal


def _error(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"errors": [{"code": code, "message": message}]}, status=status)


@asynccontextmanager
async def serving(registry: Registry) -> AsyncIterator[Registry]:
    """Serve it until the block ends."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", registry.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", registry.port)
    await site.start()
    registry.port = runner.addresses[0][1]
    try:
        yield registry
    finally:
        registry._closing.set()
        await runner.cleanup()
