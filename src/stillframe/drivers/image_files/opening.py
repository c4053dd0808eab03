"""Opening by descriptor: the way down to a file is walked once, folder by folder, and nobody else can change it.

A folder is verified if it and every folder above it belong to root or to the service's user, and nobody else may write
to them; a parent that all may write to has to be sticky, as /tmp is. sshd and systemd judge in the same way. A symbolic
link on the way is followed only if it belongs to one of these owners, and what it leads through is verified too.

What the operating system refuses is raised as `OSError`, what is judged here as `Refused`; neither a FIFO nor a device
in a file's place can block anybody, for it is looked at before it is opened.
"""

from __future__ import annotations

import errno
import logging
import os
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stillframe.domain.errors import Refused

LOG = logging.getLogger(__name__)

_LOOK: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_LINKS: Final = 40  # as the kernel follows in one path
_WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH  # where there is an ACL, the group's bits are its mask
_KINDS: Final = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a block device",
    stat.S_IFLNK: "a symbolic link",
}


class Unverified(Refused):
    """Somebody else could put other files in this folder; `folder` and `mend` are for operators, not for tenants."""

    def __init__(self, folder: Path, why: str, mend: str) -> None:
        super().__init__(
            f"The folder of the disk, or one above it, {why} could swap the files in it; the service's log and "
            "'stillframe doctor' name it and say how to mend it."
        )
        self.folder = folder
        self.why = why
        self.mend = mend


@dataclass(frozen=True, slots=True)
class Folder:
    """A verified folder: `fd` refers to it (O_PATH) while it is open, `path` has no symbolic links in it."""

    fd: int
    path: Path

    @property
    def mount(self) -> tuple[int, int]:
        """The mount that it lies in, and its device: only within both can files be linked and renamed."""
        return _mount(self.fd)


@dataclass(frozen=True, slots=True)
class File:
    """An open regular file in a verified folder; `found` is what was known of it at its opening."""

    fd: int
    name: str
    folder: Folder
    found: os.stat_result

    @property
    def path(self) -> Path:
        """Where it lies, without symbolic links; for words and for names in one folder, not to open it again."""
        return self.folder.path / self.name

    @property
    def mount(self) -> tuple[int, int]:
        """See `Folder.mount`; a file that something is mounted on has another one than its folder."""
        return _mount(self.fd)


def trusted_users(state: Path | None = None) -> frozenset[int]:
    """Who may own the folders of disks: root, the user of this process, and the owner of the service's state folder."""
    owners = {0, os.geteuid()}
    if state is not None:
        try:
            owners.add(state.stat().st_uid)
        except OSError:
            LOG.debug("there is no state folder %s", state)
    return frozenset(owners)


@contextmanager
def folder(path: Path, trusted: frozenset[int] | None = None, *, links: bool = True) -> Iterator[Folder]:
    """The verified folder behind a path; raises `Unverified`, `OSError`, and `Refused` for a link without `links`."""
    way = _walked(path, trusted if trusted is not None else trusted_users(), links=links)
    try:
        if not way.is_folder:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
        _require_final(way.fd, way.path)
        yield Folder(way.fd, way.path)
    finally:
        way.close()


@contextmanager
def file(
    path: Path, flags: int = os.O_RDONLY, trusted: frozenset[int] | None = None, *, links: bool = True
) -> Iterator[File]:
    """The regular file behind a path, opened in its verified folder; raises `Refused` and as `folder`."""
    way = _walked(path, trusted if trusted is not None else trusted_users(), links=links)
    try:
        _require_regular(way.fd)
        _require_final(way.parent, way.path.parent)
        # Through the descriptor: what was looked at is what is opened. A lease of somebody else holds nobody up.
        opened = os.open(f"/proc/self/fd/{way.fd}", flags | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            yield File(opened, way.path.name, Folder(way.parent, way.path.parent), os.fstat(opened))
        finally:
            os.close(opened)
    finally:
        way.close()


@contextmanager
def entry(parent: Folder, name: str, flags: int = os.O_RDONLY) -> Iterator[File]:
    """A regular file with this name in a verified folder, never behind a link; raises `Refused`, `OSError`."""
    looked = os.open(name, _LOOK, dir_fd=parent.fd)
    try:
        _require_regular(looked)
        opened = os.open(f"/proc/self/fd/{looked}", flags | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(looked)
    try:
        yield File(opened, name, parent, os.fstat(opened))
    finally:
        os.close(opened)


class _Way:
    """Where a walk is: an open object, the folder that it is in, and the path without links."""

    def __init__(self) -> None:
        self.fd = os.open("/", _LOOK | os.O_DIRECTORY)
        self.parent = os.dup(self.fd)
        self.path = Path("/")
        self.is_folder = True

    def step(self, fd: int, found: os.stat_result, path: Path) -> None:
        os.close(self.parent)
        self.parent, self.fd, self.path = self.fd, fd, path
        self.is_folder = stat.S_ISDIR(found.st_mode)

    def restarted(self) -> _Way:
        fresh = _Way()
        self.close()
        return fresh

    def close(self) -> None:
        os.close(self.fd)
        os.close(self.parent)


def _walked(path: Path, trusted: frozenset[int], *, links: bool) -> _Way:
    if not path.is_absolute():
        raise ValueError(f"{path} is not absolute")
    way, followed = _Way(), 0
    ahead = list(reversed(path.parts[1:]))
    try:
        _require_trusted(way.fd, way.path, trusted)
        while ahead:
            name = ahead.pop()
            try:
                fd = os.open(name, _LOOK, dir_fd=way.fd)
            except OSError as problem:
                raise OSError(problem.errno, problem.strerror, str(way.path / name)) from None
            found = os.fstat(fd)
            if stat.S_ISLNK(found.st_mode):
                followed += 1
                target = _target(fd, way, name, trusted, most=_MOST_LINKS if links else 0, followed=followed)
                ahead.extend(reversed([part for part in target.parts if part != "/"]))
                if target.is_absolute():
                    way = way.restarted()
                continue
            way.step(fd, found, way.path.parent if name == ".." else way.path / name)
            if way.is_folder:
                _require_trusted(fd, way.path, trusted)
    except BaseException:
        way.close()
        raise
    return way


def _target(fd: int, way: _Way, name: str, trusted: frozenset[int], *, most: int, followed: int) -> Path:
    path = way.path / name
    try:
        if not most:
            LOG.warning("refused: %r is a symbolic link where none belongs", str(path))
            raise Refused(
                "A symbolic link lies where the service keeps its copies; remove it, the service's log names it."
            )
        if followed > most:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        owner = os.fstat(fd).st_uid
        if owner not in trusted and os.fstat(way.fd).st_mode & _WRITABLE_BY_OTHERS:
            why = f"is behind a link that belongs to uid {owner}, who"
            raise _unverified(path, why, f"name the path behind the link {_quoted(path)}, or remove it")
        return Path(os.readlink("", dir_fd=fd))
    finally:
        os.close(fd)


def _require_trusted(fd: int, path: Path, trusted: frozenset[int]) -> None:
    found = os.fstat(fd)
    if found.st_uid not in trusted:
        raise _unverified(path, f"belongs to uid {found.st_uid}, who", f"chown {max(trusted)} {_quoted(path)}")
    if found.st_mode & _WRITABLE_BY_OTHERS and not found.st_mode & stat.S_ISVTX:
        raise _writable(path, found)


def _require_final(fd: int, path: Path) -> None:
    # Nobody can rename what is another's in a sticky folder, but everybody can add to it.
    found = os.fstat(fd)
    if found.st_mode & _WRITABLE_BY_OTHERS:
        raise _writable(path, found)


def _writable(path: Path, found: os.stat_result) -> Unverified:
    who = "everybody" if found.st_mode & stat.S_IWOTH else f"the group {found.st_gid}, or an entry of its ACL"
    mend = f"chmod go-w {_quoted(path)}"
    if found.st_mode & stat.S_ISVTX:
        mend = "move the disk into a folder of its own that only root and the service may write to"
    return _unverified(path, f"can be written to by {who}, who", mend)


def _unverified(path: Path, why: str, mend: str) -> Unverified:
    LOG.warning("refused: the folder %r %s could swap the files in it; mend it: %s", str(path), why, mend)
    return Unverified(path, why, mend)


def _require_regular(fd: int) -> None:
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise Refused(f"The disk's file is not a regular file but {kind}; only image files can be copied.")


def _mount(fd: int) -> tuple[int, int]:
    # Python's os has no statx; of two mounts of one file system, the device says nothing.
    told = Path(f"/proc/self/fdinfo/{fd}").read_text()
    return int(told.partition("mnt_id:")[2].split()[0]), os.fstat(fd).st_dev


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
