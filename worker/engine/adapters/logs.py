"""A task's output: plain files that the task appends to, cut from behind by the engine.

There is no process between a task and its files, so nobody can make it wait, and nobody has to
outlive anything. When a file has grown beyond its limit, its older part is copied to `stdout.1`
and then taken out of the file itself: by FALLOC_FL_COLLAPSE_RANGE where the file system has it
(ext4, xfs), by punching a hole into it (btrfs, tmpfs), both without losing a byte that the task
appends meanwhile. Where neither exists (NFS) the file is truncated, which can lose what comes in
the instant between the last copy and the cut.

A task that truncates its output itself (`echo x > /dev/stderr` in a shell does) truncates the live
file, as it would in any file that it is given.

A crash between copying and cutting leaves the same bytes in both; it never loses any.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
from pathlib import Path

from skep.domain.spec import LogPolicy
from skep.worker.engine.core.records import STDERR_FILE, STDOUT_FILE

log = logging.getLogger(__name__)

STREAMS = (STDOUT_FILE, STDERR_FILE)

# Files are cut in whole blocks, so a smaller limit would only make many small files.
MIN_PIECE_BYTES = 64 * 1024

FALLOC_FL_KEEP_SIZE = 0x01
FALLOC_FL_PUNCH_HOLE = 0x02
FALLOC_FL_COLLAPSE_RANGE = 0x08

_libc = ctypes.CDLL(None, use_errno=True)


def _fallocate(fd: int, mode: int, length: int) -> bool:
    """fallocate(2) from the file's beginning; False if this file system can't."""
    call = getattr(_libc, "fallocate64", None) or _libc.fallocate
    if call(fd, mode, ctypes.c_int64(0), ctypes.c_int64(length)) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
        return False
    raise OSError(number, os.strerror(number))


def over_limit(folder: Path, policy: LogPolicy) -> list[str]:
    """The streams that have grown beyond the policy's limit for one file."""
    limit = max(policy.max_bytes, MIN_PIECE_BYTES)
    found = []
    for stream in STREAMS:
        try:
            status = os.stat(folder / stream)
        except FileNotFoundError:
            continue
        # Blocks count as well as size: a file with its older part punched out keeps its size.
        if min(status.st_size, status.st_blocks * 512) > limit:
            found.append(stream)
    return found


def rotate(folder: Path, stream: str, policy: LogPolicy) -> None:
    """Move what a stream holds, but for less than a block, to older files; what goes beyond
    `max_files` is dropped. With one file alone, its newer half is kept in place."""
    live = folder / stream
    try:
        _rotate(live, policy)
    except OSError as error:
        log.warning("task=%s stream=%s not rotated: %s", folder.name, stream, error)


def _rotate(live: Path, policy: LogPolicy) -> None:
    fd = os.open(live, os.O_RDWR | os.O_CLOEXEC)
    try:
        head, size = first_byte(fd), os.fstat(fd).st_size
        block = os.fstatvfs(fd).f_bsize
        kept = max(policy.max_bytes, MIN_PIECE_BYTES) // 2 if policy.max_files == 1 else 1
        cut = (size - kept) // block * block
        if cut <= head:
            return
        for start, end in _pieces(head, cut, policy):
            _shift(live, policy)
            _copy(fd, start, end, older(live, 1))
        _cut(fd, cut, live, policy)
    finally:
        os.close(fd)


def older(live: Path, number: int) -> Path:
    """The file with an older part: 1 is the newest of them."""
    return live.with_name(f"{live.name}.{number}")


def first_byte(fd: int) -> int:
    """Where a stream's file begins, after a hole that rotation has left."""
    try:
        return os.lseek(fd, 0, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return os.fstat(fd).st_size
        return 0


def _pieces(head: int, cut: int, policy: LogPolicy) -> list[tuple[int, int]]:
    """What to copy, oldest first, each piece no longer than a file may be."""
    length = max(policy.max_bytes, MIN_PIECE_BYTES)
    ends = range(cut, head, -length)[: policy.max_files - 1]
    return [(max(head, end - length), end) for end in reversed(ends)]


def _shift(live: Path, policy: LogPolicy) -> None:
    for number in range(policy.max_files - 1, 0, -1):
        source = older(live, number)
        if source.exists():
            if number == policy.max_files - 1:
                source.unlink()
            else:
                source.rename(older(live, number + 1))


def _copy(fd: int, start: int, end: int, to: Path) -> None:
    temporary = to.with_name(to.name + ".new")
    out = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        while start < end:
            copied = os.sendfile(out, fd, start, end - start)
            if copied == 0:
                break
            start += copied
    finally:
        os.close(out)
    temporary.rename(to)


def _cut(fd: int, cut: int, live: Path, policy: LogPolicy) -> None:
    if _fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, cut):
        return
    if _fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, cut):
        return
    if policy.max_files > 1:
        end = os.open(older(live, 1), os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            while part := os.pread(fd, 1 << 20, cut):
                cut += os.write(end, part)
        finally:
            os.close(end)
    os.ftruncate(fd, 0)


def newest(folder: Path, policy: LogPolicy, limit_bytes: int) -> bytes:
    """The newest output of both streams, up to a limit; the stream that was written to last comes
    last. How lines of different streams were mixed is not known."""
    tails = {stream: _tail(folder / stream, policy, limit_bytes) for stream in STREAMS}
    changed = {stream: _changed(folder / stream) for stream in STREAMS}
    first, last = sorted(STREAMS, key=lambda stream: changed[stream])
    # Each may have half; what one doesn't need is the other's.
    share = limit_bytes - min(len(tails[last]), limit_bytes // 2)
    begin = tails[first][max(0, len(tails[first]) - share) :]
    end = tails[last][max(0, len(tails[last]) - (limit_bytes - len(begin))) :]
    return begin + end


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _tail(live: Path, policy: LogPolicy, limit_bytes: int) -> bytes:
    found = b""
    for path in (live, *(older(live, number) for number in range(1, policy.max_files))):
        wanted = limit_bytes - len(found)
        if wanted <= 0:
            break
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            size = os.fstat(fd).st_size
            start = max(first_byte(fd), size - wanted)
            found = os.pread(fd, size - start, start) + found
        finally:
            os.close(fd)
    return found
