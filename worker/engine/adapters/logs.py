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

A task owns its folder's files where it runs as the engine's own user. So nothing here follows a
symbolic link, or opens anything but a regular file: a task can't make the engine read, or cut, a
file that is not its own.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Rotated:
    """What comes before byte `moved` of a live file is in older files, or dropped; `removed` bytes
    were taken out of its beginning."""

    moved: int
    removed: int


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


def look(path: Path) -> os.stat_result | None:
    """A regular file's state; None where there is none."""
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return status if stat.S_ISREG(status.st_mode) else None


@contextmanager
def opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    """A regular file, opened. Raises OSError for anything else."""
    # Without O_NONBLOCK a pipe in the file's place would keep us waiting for its other end.
    flags |= os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    fd = os.open(path, flags, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        yield fd
    finally:
        os.close(fd)


def is_over_limit(status: os.stat_result, policy: LogPolicy) -> bool:
    """Whether a live file has grown beyond the policy's limit for one file."""
    limit = max(policy.max_bytes, MIN_PIECE_BYTES)
    # Blocks count as well as size: a file with its older part punched out keeps its size.
    return min(status.st_size, status.st_blocks * 512) > limit


def rotate(live: Path, policy: LogPolicy) -> Rotated | None:
    """Move what a stream holds, but for less than a block, to older files; what goes beyond
    `max_files` is dropped. With one file alone, its newer half is kept in place. None where
    nothing was done."""
    try:
        return _rotate(live, policy)
    except OSError as error:
        log.warning("task=%s stream=%s not rotated: %s", live.parent.name, live.name, error)
        return None


def _rotate(live: Path, policy: LogPolicy) -> Rotated | None:
    with opened(live, os.O_RDWR) as fd:
        head, size = first_byte(fd), os.fstat(fd).st_size
        block = os.fstatvfs(fd).f_bsize
        kept = max(policy.max_bytes, MIN_PIECE_BYTES) // 2 if policy.max_files == 1 else 1
        cut = (size - kept) // block * block
        if cut <= head:
            return None
        for start, end in _pieces(head, cut, policy):
            _shift(live, policy)
            _copy(fd, start, end, older(live, 1))
        return _cut(fd, cut, live, policy)


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
    with opened(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as out:
        while start < end:
            copied = os.sendfile(out, fd, start, end - start)
            if copied == 0:
                break
            start += copied
    temporary.rename(to)


def _cut(fd: int, cut: int, live: Path, policy: LogPolicy) -> Rotated:
    if _fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, cut):
        return Rotated(cut, cut)
    if _fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, cut):
        return Rotated(cut, 0)
    if policy.max_files > 1:
        with opened(older(live, 1), os.O_WRONLY | os.O_APPEND) as end:
            while part := os.pread(fd, 1 << 20, cut):
                cut += os.write(end, part)
    else:
        cut = os.fstat(fd).st_size
    os.ftruncate(fd, 0)
    return Rotated(cut, cut)
