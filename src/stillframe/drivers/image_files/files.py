"""Every change to the file system: one method, one effect, so that tests can stop the world around each of them.

What lies beside a disk is reached through verified folders only, and never through a symbolic link; see
`stillframe.drivers.image_files.opening`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from stillframe.drivers.image_files import blocks, opening
from stillframe.posix import private

_CANNOT_BE_NAMELESS: Final = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.ENOSYS, errno.EINVAL})
_NAMELESS: Final = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Draft:
    """A file in the making, of one attempt alone; `close` leaves nothing of it behind unless it has been put in place.

    It has no name where the file system can do without, else `name`, which holds the attempt. As long as it is open it
    is locked (flock): whoever finds one that is not locked knows that its maker is gone.
    """

    def __init__(self, folder: Path, name: str, fd: int, *, named: bool) -> None:
        self.folder = folder
        self.name = name
        self.fd = fd
        self.named = named
        with suppress(OSError):  # a file system without locks has the name alone
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def close(self) -> None:
        """Let go of it."""
        try:
            if self.named:
                with suppress(FileNotFoundError), opening.folder(self.folder, links=False) as folder:
                    os.unlink(self.name, dir_fd=folder.fd)
        finally:
            os.close(self.fd)


class Files:
    """Changes files and folders of this machine; raises `OSError`, which the callers translate.

    Methods that reach into the folder of a disk raise `Unverified` too.
    """

    def __init__(self) -> None:
        self._drafting = threading.Lock()
        self._flushes: dict[Path, _Flush] = {}
        self._flushing = threading.Lock()

    # Looking.

    def can_clone(self, folder: Path, trusted: frozenset[int] | None = None) -> bool:
        """Whether files in this folder can share their blocks; tried each time, with two files that have no name."""
        with opening.folder(folder, trusted) as opened:
            try:
                with _held(_nameless(opened)) as origin, _held(_nameless(opened)) as fresh:
                    os.write(origin, bytes(4096))
                    blocks.clone(origin, fresh)
            except OSError as problem:
                if problem.errno in blocks.CANNOT_CLONE | _CANNOT_BE_NAMELESS:
                    return False
                raise
        return True

    def free(self, folder: Path) -> int:
        """Bytes that can still be written to the file system of this folder."""
        found = os.statvfs(folder)
        return found.f_bavail * found.f_frsize

    # Drafts, and what becomes of them.

    def draft(self, folder: Path, name: str, like: int) -> Draft:
        """A new, empty file in a folder, with owner, mode and ACL of an open one; whoever calls closes it."""
        with opening.folder(folder, links=False) as opened:
            try:
                draft = Draft(folder, name, _nameless(opened), named=False)
            except OSError as problem:
                if problem.errno not in _CANNOT_BE_NAMELESS:
                    raise
                draft = Draft(folder, name, os.open(name, _NEW, 0o600, dir_fd=opened.fd), named=True)
        try:
            blocks.own(draft.fd, like)
        except BaseException:
            draft.close()
            raise
        return draft

    def clone(self, source: int, draft: Draft) -> None:
        """Let a draft share all blocks of an open file."""
        blocks.clone(source, draft.fd)

    def copy(self, source: int, draft: Draft, tick: blocks.Tick) -> None:
        """Copy an open file's data and holes into a draft; see `blocks.copy`."""
        blocks.copy(source, draft.fd, tick)

    def take_after(self, model: int, draft: Draft) -> None:
        """Give the draft the extended attributes of an open file; it has its owner and mode already."""
        blocks.take_attributes(model, draft.fd)

    def sync_draft(self, draft: Draft) -> None:
        """Make a draft's content durable."""
        os.fsync(draft.fd)

    def place(self, draft: Draft, name: str) -> None:
        """Give a draft its final name in its folder; raises `FileExistsError` if something is there already."""
        with opening.folder(draft.folder, links=False) as folder:
            if draft.named:
                blocks.rename_new(folder.fd, draft.name, name)
                draft.named = False
            else:
                _link(draft.fd, folder, name)

    def show(self, draft: Draft) -> None:
        """Give a draft the name that is its attempt's own, if it has none yet."""
        if not draft.named:
            with opening.folder(draft.folder, links=False) as folder:
                _link(draft.fd, folder, draft.name)
            draft.named = True

    def replace(self, draft: Draft, target: Path) -> None:
        """Put a draft that has a name in the place of a file, at one instant; raises if somebody has removed it."""
        with opening.folder(draft.folder, links=False) as here, opening.folder(target.parent, links=False) as there:
            os.rename(draft.name, target.name, src_dir_fd=here.fd, dst_dir_fd=there.fd)
        draft.named = False

    def second_name(self, source: int, folder: Path, name: str) -> Draft:
        """A draft that is a second name of an open file."""
        with opening.folder(folder, links=False) as opened:
            _link(source, opened, name)
        return Draft(folder, name, os.dup(source), named=True)

    def link(self, source: int, target: Path) -> None:
        """A second name for an open file; raises `FileExistsError`."""
        with opening.folder(target.parent, links=False) as folder:
            _link(source, folder, target.name)

    # Files beside a disk.

    def create(self, target: Path, size: int, like: int, *, reserve: bool) -> None:
        """A new file of `size` bytes that reads as zeroes, with owner, mode and ACL of an open one."""
        with opening.folder(target.parent, links=False) as folder:
            fresh = os.open(target.name, _NEW, 0o600, dir_fd=folder.fd)
            try:
                blocks.own(fresh, like)
                os.ftruncate(fresh, size)
                if reserve and size:
                    blocks.reserve(fresh, 0, size)
            except OSError:
                # A full disk must not stay full because of a file that nobody can use.
                os.unlink(target.name, dir_fd=folder.fd)
                raise
            finally:
                os.close(fresh)

    def fit(self, path: Path, size: int) -> None:
        """Give a file exactly this size, and give blocks back that were never written."""
        with opening.file(path, os.O_RDWR, links=False) as file:
            os.ftruncate(file.fd, size)
            blocks.free_holes(file.fd)

    def write_out(self, path: Path) -> None:
        """Let the kernel write a file's data out, so that a later flush of it is short."""
        with opening.file(path) as file:
            os.fdatasync(file.fd)

    def sync(self, path: Path) -> None:
        """Make a file or folder durable."""
        with _held(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)) as opened:
            os.fsync(opened)

    def sync_shared(self, folder: Path) -> None:
        """As `sync`, for what many threads do in one folder at a time: those that wait for a flush share the next."""
        with self._flushing:
            flush = self._flushes.setdefault(folder, _Flush())
        flush.run(lambda: self.sync(folder))

    def remove_beside(self, path: Path) -> None:
        """Remove a file beside a disk; one that is gone already is fine."""
        with suppress(FileNotFoundError), opening.folder(path.parent, links=False) as folder:
            os.unlink(path.name, dir_fd=folder.fd)

    # Folders beside a disk.

    def make_folder_beside(self, path: Path) -> None:
        """Make a folder that only the service may enter; one that is there already is fine, not durable."""
        with opening.folder(path.parent, links=False) as parent, suppress(FileExistsError):
            os.mkdir(path.name, 0o700, dir_fd=parent.fd)

    def close_folder(self, path: Path) -> None:
        """Let nobody but the service enter a folder."""
        with opening.folder(path, links=False) as folder, _listed(folder) as listed:
            os.fchmod(listed, 0o700)

    def rename_folder(self, source: Path, target: Path) -> None:
        """Move a folder within its parent; raises if something is in the target's place."""
        with opening.folder(source.parent, links=False) as parent:
            blocks.rename_new(parent.fd, source.name, target.name)

    def remove_folder(self, path: Path) -> None:
        """Remove a folder and the files in it; one that is gone already is fine."""
        with suppress(FileNotFoundError), opening.folder(path.parent, links=False) as parent:
            with opening.folder(path, links=False) as folder, _listed(folder) as listed:
                for name in _entries(listed):
                    with suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=listed)
            os.rmdir(path.name, dir_fd=parent.fd)

    def remove_empty_folder(self, path: Path) -> None:
        """Remove a folder that has nothing in it; nothing happens to one that has, or that is gone already."""
        with suppress(FileNotFoundError), opening.folder(path.parent, links=False) as parent:
            try:
                os.rmdir(path.name, dir_fd=parent.fd)
            except OSError as problem:
                if problem.errno != errno.ENOTEMPTY:
                    raise

    # Files and folders of the service's own.

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

    def note(self, draft: Path, path: Path, content: bytes, *, durably: bool) -> None:
        """Put a small file there, whole or not at all, by way of a draft that is this attempt's own.

        Only its content is made durable, by request; the entry in the folder is up to `sync_shared`. The draft is
        locked as long as we are about to put it there.
        """
        with (
            _held(os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as folder,
            _drawn(opening.Folder(folder, path.parent), draft.name, content, durably=durably),
        ):
            draft.replace(path)

    def remove_abandoned(self, draft: Path) -> None:
        """Remove what `note` began under this name, unless somebody still is at it."""
        with suppress(FileNotFoundError), _held(os.open(draft, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            draft.unlink()

    def rename(self, source: Path, target: Path) -> None:
        """Move within one file system; a file in the target's place is replaced at one instant."""
        source.rename(target)

    def remove(self, path: Path) -> None:
        """Remove a file; one that is gone already is fine."""
        path.unlink(missing_ok=True)

    def make_folder(self, path: Path, mode: int = 0o700) -> None:
        """Make a folder and its parents, durably; one that is there already is fine."""
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        private.make_folder(path)
        if missing:
            path.chmod(mode)
        for folder in missing:
            sync_entries(folder.parent)


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
    with _held(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as opened:
        os.fsync(opened)


def allocated(path: Path) -> int:
    """Bytes that a file really occupies; raises `OSError`."""
    return path.stat().st_blocks * 512


def names_in(folder: Path, trusted: frozenset[int] | None = None) -> list[str]:
    """What lies in a verified folder beside a disk, sorted; nothing where there is none. Raises `Unverified`."""
    try:
        with opening.folder(folder, trusted, links=False) as opened, _listed(opened) as listed:
            return sorted(_entries(listed))
    except FileNotFoundError:
        return []


@contextmanager
def _held(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _listed(folder: opening.Folder) -> Iterator[int]:
    with _held(os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder.fd)) as listed:
        yield listed


def _entries(listed: int) -> list[str]:
    with os.scandir(listed) as entries:
        return [entry.name for entry in entries]


def _nameless(folder: opening.Folder) -> int:
    return os.open(".", _NAMELESS, 0o600, dir_fd=folder.fd)


def _link(fd: int, folder: opening.Folder, name: str) -> None:
    os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=folder.fd, follow_symlinks=True)


@contextmanager
def _drawn(folder: opening.Folder, name: str, content: bytes, *, durably: bool) -> Iterator[None]:
    """A small file under a name, complete and locked.

    It is nameless until then where that can be: a kill while it is flushed leaves nothing.
    """
    try:
        draft, nameless = _nameless(folder), True
    except OSError as problem:
        if problem.errno not in _CANNOT_BE_NAMELESS:
            raise
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        draft, nameless = os.open(name, flags, 0o600, dir_fd=folder.fd), False
    with os.fdopen(draft, "wb") as opened:
        fcntl.flock(draft, fcntl.LOCK_EX)
        try:
            opened.write(content)
            opened.flush()
            if durably:
                os.fsync(draft)
        except OSError:
            if not nameless:
                os.unlink(name, dir_fd=folder.fd)
            raise
        if nameless:
            _link(draft, folder, name)
        yield


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
