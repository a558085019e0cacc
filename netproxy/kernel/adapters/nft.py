"""Transactions of nftables, by libnftables: no process is started, no output of one parsed.

All functions block (a transaction waits some 16 ms for the kernel, whatever its size) and work on
the namespace that the calling thread is in; see `inside`. They take turns: the library may have a
context per thread, but what it looks names up with (strtok, getprotobyname) is the whole process's,
and two threads at once end in wrong rules or a crash.
"""

from __future__ import annotations

import ctypes
import os
import re
import threading
from collections.abc import Callable
from typing import Any

from skep.env import Rejected, Retryable
from skep.netproxy.kernel.core.listing import (
    DropsForwarded,
    Listing,
    read_forward_drops,
    read_listing,
)

LIBRARY = "libnftables.so.1"
# Flags of nft_ctx_output_set_flags.
_JSON, _NUMERIC_PROTOCOLS = 1 << 4, 1 << 7
_PLACE = re.compile(r"\S+:(\d+):\d+")
_TURN = threading.Lock()
# Characters of an error, and of the line that it is in: a line may list thousands of elements.
ERROR_LIMIT = 500


class NftFailed(Retryable):
    """The kernel or libnftables refused a transaction; nothing of it was done.

    `line` is the offending line, "" where it isn't told.
    """

    def __init__(self, message: str, line: str = "") -> None:
        super().__init__(f"{message} (in {line!r})" if line else message)
        self.line = line


class Nft:
    """The library. Raises Rejected where it is missing."""

    def __init__(self, library: str = LIBRARY) -> None:
        try:
            self._library = ctypes.CDLL(library)
        except OSError as error:
            raise Rejected(
                f"{library} can't be loaded ({error}); install it: apt-get install libnftables1"
            ) from None
        self._new = self._function("nft_ctx_new", ctypes.c_void_p, ctypes.c_uint32)
        self._free = self._function("nft_ctx_free", None, ctypes.c_void_p)
        self._keep_output = self._function("nft_ctx_buffer_output", ctypes.c_int, ctypes.c_void_p)
        self._keep_errors = self._function("nft_ctx_buffer_error", ctypes.c_int, ctypes.c_void_p)
        self._output = self._function("nft_ctx_get_output_buffer", ctypes.c_char_p, ctypes.c_void_p)
        self._errors = self._function("nft_ctx_get_error_buffer", ctypes.c_char_p, ctypes.c_void_p)
        self._run = self._function(
            "nft_run_cmd_from_filename", ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p
        )
        self._set_flags = self._function(
            "nft_ctx_output_set_flags", None, ctypes.c_void_p, ctypes.c_uint
        )

    def run(self, script: str) -> str:
        """Do all that the script says, or nothing of it; returns what it prints, as JSON.

        Raises NftFailed.
        """
        with _TURN:
            return self._run_alone(script)

    def _run_alone(self, script: str) -> str:
        # A context has a socket, which belongs to this thread's namespace: none is kept.
        context = self._new(0)
        if not context:
            raise NftFailed("libnftables has no room for a context")
        try:
            self._keep_output(context)
            self._keep_errors(context)
            self._set_flags(context, _JSON | _NUMERIC_PROTOCOLS)
            if self._run_file(context, script) != 0:
                errors = (self._errors(context) or b"").decode(errors="replace")
                raise _failure(errors, script)
            return str((self._output(context) or b"").decode())
        finally:
            self._free(context)

    def read(self, table: str) -> Listing | None:
        """What is in an IPv4 table; None where there is none. Raises NftFailed."""
        text = self._ask(f"list table ip {table}")
        return None if text is None else read_listing(text)

    def read_counters(self, table: str) -> Listing | None:
        """The same of a table's counters alone."""
        text = self._ask(f"list counters table ip {table}")
        return None if text is None else read_listing(text)

    def forward_drops(self, interface: str) -> tuple[DropsForwarded, ...]:
        """The chains that drop what is forwarded by default, and don't speak of `interface`.

        Raises NftFailed.
        """
        drops = read_forward_drops(self.run("list chains"))
        return tuple(
            drop
            for drop in drops
            if f'"{interface}"' not in (self._ask(f"list table {drop.family} {drop.table}") or "")
        )

    def has(self, table: str) -> bool:
        """Whether there is such an IPv4 table. Raises NftFailed."""
        return self._ask(f"list counters table ip {table}") is not None

    def delete(self, table: str) -> None:
        """Delete an IPv4 table with all that is in it; idempotent. Raises NftFailed."""
        if self._ask(f"list table ip {table}") is not None:
            self.run(f"delete table ip {table}")

    def _run_file(self, context: object, script: str) -> int:
        """From a file in memory: of a text in a buffer, libnftables doesn't tell the line."""
        fd = os.memfd_create("skep.nft", os.MFD_CLOEXEC)
        with open(fd, "wb") as file:
            file.write(script.encode())
            file.flush()
            return int(self._run(context, f"/proc/self/fd/{fd}".encode()))

    def _ask(self, command: str) -> str | None:
        try:
            return self.run(command)
        except NftFailed as error:
            if "No such file or directory" in str(error):
                return None
            raise

    def _function(self, name: str, result: object, *arguments: object) -> Callable[..., Any]:
        function = getattr(self._library, name)
        function.restype = result
        function.argtypes = arguments
        return function  # type: ignore[no-any-return]


def _failure(text: str, script: str) -> NftFailed:
    """From what libnftables says: the place, the error, the line, and a pointer below it."""
    first = text.partition("\n")[0][:ERROR_LIMIT]
    reason = first.partition("Error: ")[2] or first or "failed without a word"
    place = _PLACE.match(first)
    lines = script.splitlines()
    if place is None or not 0 < int(place[1]) <= len(lines):
        return NftFailed(f"nftables: {reason}")
    return NftFailed(f"nftables: {reason}", lines[int(place[1]) - 1].strip()[:ERROR_LIMIT])
