"""Every change to the file system: one method, one effect, so that tests can stop the world around each of them."""

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import os
import shutil
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_FICLONE: Final = 0x40049409  # linux/fs.h
_GET_FLAGS: Final = 0x80086601  # FS_IOC_GETFLAGS
_SET_FLAGS: Final = 0x40086602  # FS_IOC_SETFLAGS
_NO_COW: Final = 0x00800000  # FS_NOCOW_FL; btrfs clones only between files that agree on it
_KEEP_SIZE: Final = 0x01  # linux/falloc.h
_PUNCH_HOLE: Final = 0x02
_CANNOT_CLONE: Final = frozenset({errno.EOPNOTSUPP, errno.EXDEV, errno.ENOTTY, errno.EINVAL, errno.ENOSYS})
_CANNOT_COPY_RANGE: Final = frozenset({errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})
_CHUNK: Final = 8 << 20

_LIBC: Final = ctypes.CDLL(None, use_errno=True)

Tick = Callable[[int, int], None]


class Files:
    """Changes files and folders of this machine; raises `OSError`, which the callers translate at the border."""

    def __init__(self) -> None:
        self._clones: dict[int, bool] = {}
        self._drafting = threading.Lock()
        self._flushes: dict[Path, _Flush] = {}
        self._flushing = threading.Lock()

    # Looking.

    def can_clone(self, folder: Path) -> bool:
        """Whether files in this folder can share their blocks; tried with two nameless files, known per file system."""
        device = folder.stat().st_dev
        if device not in self._clones:
            self._clones[device] = _try_clone(folder)
        return self._clones[device]

    def free(self, folder: Path) -> int:
        """Bytes that can still be written to the file system of this folder."""
        found = os.statvfs(folder)
        return found.f_bavail * found.f_frsize

    # Files.

    def clone(self, source: Path, target: Path) -> None:
        """A new file that shares all blocks of the source; owner and mode as the source's, not yet durable."""
        with _opened(source, os.O_RDONLY) as origin, _created(target, like=source) as fresh:
            _agree_on_cow(origin, fresh)
            fcntl.ioctl(fresh, _FICLONE, origin)

    def copy(self, source: Path, target: Path, tick: Tick) -> None:
        """A new file with the source's data and holes; `tick(done, total)` in bytes at least once a second.

        Room for all of it is taken before the first byte is copied. The target is removed if the disk is full.
        """
        with _opened(source, os.O_RDONLY) as origin, _created(target, like=source) as fresh:
            extents = list(_extents(origin))
            os.ftruncate(fresh, os.fstat(origin).st_size)
            for start, end in extents:
                _reserve(fresh, start, end - start)
            total, done = sum(end - start for start, end in extents), 0
            tick(0, total)
            for start, end in extents:
                for moved in _moved(origin, fresh, start, end):
                    done += moved
                    tick(done, total)

    def create(self, target: Path, size: int, like: Path, *, reserve: bool) -> None:
        """A new file of `size` bytes that reads as zeroes, owner and mode as those of `like`."""
        with _created(target, like=like) as fresh:
            os.ftruncate(fresh, size)
            if reserve and size:
                _reserve(fresh, 0, size)

    def link(self, source: Path, target: Path) -> None:
        """A second name for the same file."""
        os.link(source, target, follow_symlinks=False)

    def take_after(self, model: Path, target: Path) -> None:
        """Give the target the model's owner, mode and extended attributes."""
        with _opened(target, os.O_RDWR) as fresh:
            _own(fresh, model.stat())
            for name in os.listxattr(model):
                os.setxattr(fresh, name, os.getxattr(model, name))

    def free_holes(self, path: Path) -> None:
        """Give blocks back that are allocated but were never written."""
        with _opened(path, os.O_RDWR) as file:
            size, position = os.fstat(file).st_size, 0
            for start, end in [*_extents(file), (size, size)]:
                if start > position:
                    _fallocate(file, _KEEP_SIZE | _PUNCH_HOLE, position, start - position)
                position = end

    def write_out(self, path: Path) -> None:
        """Let the kernel write a file's data out, so that a later flush of it is short."""
        with _opened(path, os.O_RDONLY) as file:
            os.fdatasync(file)

    def sync(self, path: Path) -> None:
        """Make a file or folder durable."""
        with _opened(path, os.O_RDONLY) as file:
            os.fsync(file)

    def sync_shared(self, folder: Path) -> None:
        """As `sync`, for what many threads do in one folder at a time: those that wait for a flush share the next."""
        with self._flushing:
            flush = self._flushes.setdefault(folder, _Flush())
        flush.run(lambda: self.sync(folder))

    def write(self, path: Path, content: bytes) -> None:
        """Put a small file there, whole or not at all, durably."""
        with self._drafting:
            _draft(path, content).replace(path)
        sync_entries(path.parent)

    def write_new(self, path: Path, content: bytes) -> None:
        """As `write`, but raises `FileExistsError` if something is there already, whoever comes first."""
        with self._drafting:
            draft = _draft(path, content)
            try:
                os.link(draft, path)
            finally:
                draft.unlink()
        sync_entries(path.parent)

    def rename(self, source: Path, target: Path) -> None:
        """Move within one file system; a file in the target's place is replaced at one instant."""
        source.rename(target)

    def remove(self, path: Path) -> None:
        """Remove a file; one that is gone already is fine."""
        path.unlink(missing_ok=True)

    # Folders.

    def make_folder(self, path: Path, mode: int = 0o700) -> None:
        """Make a folder and its parents, durably; one that is there already is fine."""
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        if missing:
            path.chmod(mode)
        for folder in missing:
            sync_entries(folder.parent)

    def make_folder_with(self, path: Path, name: str, content: bytes) -> None:
        """A new folder that from its first instant holds one small file; not yet durable."""
        draft = path.with_name(f"{path.name}.new")
        shutil.rmtree(draft, ignore_errors=True)
        # QEMU may run as another user and has to reach the data inside.
        draft.mkdir()
        draft.chmod(0o711)
        (draft / name).write_bytes(content)
        draft.rename(path)

    def remove_folder(self, path: Path, last: str) -> None:
        """Remove a folder of files, the one named `last` after all others; one that is gone already is fine."""
        with suppress(FileNotFoundError):
            for entry in path.iterdir():
                if entry.name != last:
                    entry.unlink()
            (path / last).unlink(missing_ok=True)
            path.rmdir()


class _Flush:
    """A flush that was begun after somebody asked for one is as good as a flush of their own."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._begun = 0
        self._ended = 0

    def run(self, flush: Callable[[], None]) -> None:
        wanted = self._begun + 1
        with self._turn:
            if self._ended >= wanted:
                return
            self._begun += 1
            flush()
            self._ended = self._begun


def sync_entries(folder: Path) -> None:
    """Make the entries of a folder durable."""
    with _opened(folder, os.O_RDONLY | os.O_DIRECTORY) as opened:
        os.fsync(opened)


def allocated(path: Path) -> int:
    """Bytes that a file really occupies; raises `OSError`."""
    return path.stat().st_blocks * 512


def is_regular(path: Path) -> bool:
    """Whether a regular file (not a link, device or folder) is there; raises `OSError` if nothing is."""
    return stat.S_ISREG(path.lstat().st_mode)


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    file = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield file
    finally:
        os.close(file)


@contextmanager
def _created(path: Path, *, like: Path) -> Iterator[int]:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        _own(file, like.stat())
        yield file
    except OSError:
        # A full disk must not stay full because of a file that nobody can use.
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(file)


def _own(file: int, model: os.stat_result) -> None:
    found = os.fstat(file)
    if (found.st_uid, found.st_gid) != (model.st_uid, model.st_gid):
        os.fchown(file, model.st_uid, model.st_gid)
    os.fchmod(file, stat.S_IMODE(model.st_mode))


def _draft(path: Path, content: bytes) -> Path:
    # Of one name for all attempts, so that the next one takes the place of what a kill left of the one before.
    draft = path.with_name(f".{path.name}.new")
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(file, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(file)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    return draft


def _try_clone(folder: Path) -> bool:
    nameless = os.O_TMPFILE | os.O_RDWR
    try:
        with _opened(folder, nameless) as origin, _opened(folder, nameless) as fresh:
            os.write(origin, bytes(4096))
            fcntl.ioctl(fresh, _FICLONE, origin)
    except OSError as problem:
        if problem.errno in _CANNOT_CLONE:
            return False
        raise
    return True


def _agree_on_cow(origin: int, fresh: int) -> None:
    def flags(file: int) -> int:
        return struct.unpack("l", fcntl.ioctl(file, _GET_FLAGS, bytes(struct.calcsize("l"))))[0]  # type: ignore[no-any-return]

    try:
        wanted, found = flags(origin) & _NO_COW, flags(fresh)
        if found & _NO_COW != wanted:
            fcntl.ioctl(fresh, _SET_FLAGS, array.array("l", [found & ~_NO_COW | wanted]))
    except OSError as problem:
        if problem.errno not in _CANNOT_CLONE:
            raise


def _extents(file: int) -> Iterator[tuple[int, int]]:
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


def _reserve(file: int, start: int, length: int) -> None:
    try:
        _fallocate(file, 0, start, length)
    except OSError as problem:
        if problem.errno != errno.EOPNOTSUPP:  # then the copy itself will say that the disk is full
            raise


def _fallocate(file: int, mode: int, start: int, length: int) -> None:
    if _LIBC.fallocate(file, mode, ctypes.c_long(start), ctypes.c_long(length)):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
