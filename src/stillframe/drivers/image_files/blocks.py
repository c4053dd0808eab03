"""Bytes, blocks and access rights of files that are open already; no name is looked up in here."""

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import itertools
import os
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

_FICLONE: Final = 0x40049409  # linux/fs.h
_GET_FLAGS: Final = 0x80086601  # FS_IOC_GETFLAGS
_SET_FLAGS: Final = 0x40086602  # FS_IOC_SETFLAGS
_NO_COW: Final = 0x00800000  # FS_NOCOW_FL; btrfs clones only between files that agree on it
_KEEP_SIZE: Final = 0x01  # linux/falloc.h
_PUNCH_HOLE: Final = 0x02
_NO_REPLACE: Final = 0x01  # RENAME_NOREPLACE, linux/fs.h
_ACL: Final = "system.posix_acl_access"
_NO_ATTRIBUTE: Final = frozenset({errno.ENODATA, errno.EOPNOTSUPP})
CANNOT_CLONE: Final = frozenset({errno.EOPNOTSUPP, errno.EXDEV, errno.ENOTTY, errno.EINVAL, errno.ENOSYS})
_CANNOT_COPY_RANGE: Final = frozenset({errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})
_CHUNK: Final = 8 << 20

_LIBC: Final = ctypes.CDLL(None, use_errno=True)

Tick = Callable[[int, int], None]


def clone(origin: int, fresh: int) -> None:
    """Let a new, empty file share all blocks of another one; raises `OSError` with one of `CANNOT_CLONE`."""
    _agree_on_cow(origin, fresh)
    fcntl.ioctl(fresh, _FICLONE, origin)


def copy(origin: int, fresh: int, tick: Tick) -> None:
    """Copy data and holes into a new, empty file; `tick(done, total)` in bytes at least once a second.

    Room for all of it is taken before the first byte is copied. The stretches are looked up twice instead of being
    kept: whoever writes the file decides how many there are.
    """
    os.ftruncate(fresh, os.fstat(origin).st_size)
    total, done = 0, 0
    for start, end in extents(origin):
        reserve(fresh, start, end - start)
        total += end - start
    tick(0, total)
    for start, end in extents(origin):
        for moved in _moved(origin, fresh, start, end):
            done += moved
            tick(done, total)


def free_holes(file: int) -> None:
    """Give blocks back that are allocated but were never written."""
    size, position = os.fstat(file).st_size, 0
    for start, end in itertools.chain(extents(file), [(size, size)]):
        if start > position:
            _fallocate(file, _KEEP_SIZE | _PUNCH_HOLE, position, start - position)
        position = end


def reserve(file: int, start: int, length: int) -> None:
    """Take room for a stretch of the file, where the file system can; raises `OSError` where it is full."""
    try:
        _fallocate(file, 0, start, length)
    except OSError as problem:
        if problem.errno != errno.EOPNOTSUPP:  # then the copy itself will say that the disk is full
            raise


def own(fresh: int, model: int) -> None:
    """Give a file the owner, mode and ACL of another one, so that nobody has more access to it than to that."""
    found, wanted = os.fstat(fresh), os.fstat(model)
    if (found.st_uid, found.st_gid) != (wanted.st_uid, wanted.st_gid):
        os.fchown(fresh, wanted.st_uid, wanted.st_gid)
    # Where there is an ACL, the group's bits of the mode are its mask, and would mean more without it.
    entries = _access_list(model)
    if entries is not None:
        os.setxattr(fresh, _ACL, entries)
        return
    if _access_list(fresh) is not None:  # inherited from the folder
        os.removexattr(fresh, _ACL)
    if stat.S_IMODE(os.fstat(fresh).st_mode) != stat.S_IMODE(wanted.st_mode):
        os.fchmod(fresh, stat.S_IMODE(wanted.st_mode))


def take_attributes(model: int, fresh: int) -> None:
    """Give a file the extended attributes of another one; where there are none, nothing is to be done."""
    try:
        names = os.listxattr(model)
    except OSError as problem:
        if problem.errno in _NO_ATTRIBUTE:
            return
        raise
    for name in names:
        os.setxattr(fresh, name, os.getxattr(model, name))


def rename_new(folder: int, source: str, target: str) -> None:
    """Rename within one open folder; raises `FileExistsError` instead of replacing anything."""
    if not _LIBC.renameat2(folder, os.fsencode(source), folder, os.fsencode(target), _NO_REPLACE):
        return
    code = ctypes.get_errno()
    if code not in (errno.EINVAL, errno.ENOSYS):
        raise OSError(code, os.strerror(code), target)
    # This file system cannot say it in one word.
    with suppress(FileNotFoundError):
        os.stat(target, dir_fd=folder, follow_symlinks=False)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
    os.rename(source, target, src_dir_fd=folder, dst_dir_fd=folder)


def _access_list(file: int) -> bytes | None:
    try:
        return os.getxattr(file, _ACL)
    except OSError as problem:
        if problem.errno in _NO_ATTRIBUTE:
            return None
        raise


def _agree_on_cow(origin: int, fresh: int) -> None:
    def flags(file: int) -> int:
        return struct.unpack("l", fcntl.ioctl(file, _GET_FLAGS, bytes(struct.calcsize("l"))))[0]  # type: ignore[no-any-return]

    try:
        wanted, found = flags(origin) & _NO_COW, flags(fresh)
        if found & _NO_COW != wanted:
            fcntl.ioctl(fresh, _SET_FLAGS, array.array("l", [found & ~_NO_COW | wanted]))
    except OSError as problem:
        if problem.errno not in CANNOT_CLONE:
            raise


def extents(file: int) -> Iterator[tuple[int, int]]:
    """The stretches of a file that are not holes: start and end, in bytes."""
    end, size = 0, os.fstat(file).st_size
    while end < size:
        try:
            start = os.lseek(file, end, os.SEEK_DATA)
        except OSError as problem:
            if problem.errno == errno.ENXIO:  # nothing but a hole up to the end
                return
            raise
        end = os.lseek(file, start, os.SEEK_HOLE)
        yield start, end


def _moved(origin: int, fresh: int, start: int, end: int) -> Iterator[int]:
    position = start
    while position < end:
        length = min(_CHUNK, end - position)
        try:
            moved = os.copy_file_range(origin, fresh, length, position, position)
        except OSError as problem:
            if problem.errno not in _CANNOT_COPY_RANGE:
                raise
            moved = os.pwrite(fresh, os.pread(origin, length, position), position)
        if not moved:
            raise OSError(errno.EIO, "the file became shorter while it was copied")
        position += moved
        yield moved


def _fallocate(file: int, mode: int, start: int, length: int) -> None:
    if _LIBC.fallocate(file, mode, ctypes.c_long(start), ctypes.c_long(length)):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
