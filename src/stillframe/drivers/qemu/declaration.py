"""Instance files: one TOML file says what a local instance consists of."""

from __future__ import annotations

import logging
import os
import tomllib
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any, Final, Protocol

import tomli_w
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from stillframe.domain.errors import Conflict, InvalidInput, NotFound, NotSupported, Refused
from stillframe.domain.instance import Attachment, FileSource, VdiskSource
from stillframe.drivers.image_files.cache import Cache
from stillframe.drivers.image_files.error_translation import translated
from stillframe.drivers.image_files.files import Files
from stillframe.drivers.image_files.formats import Format
from stillframe.drivers.image_files.looking import same_file
from stillframe.drivers.image_files.opening import File, Unverified
from stillframe.drivers.inventory import Attached, Inventory

LOG = logging.getLogger(__name__)

_NAMESPACE: Final = uuid.UUID("7a2c6c1e-0f0e-5a7e-8f53-6d0c64d7b1f2")
_SUFFIX: Final = ".toml"
_CACHED: Final = 10_000
# Linux has 108 bytes for the name of a unix socket, the last of them is zero (unix(7)).
_MOST_SOCKET_BYTES: Final = 107


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("must be an absolute path")
    return path


def _plain_name(name: str) -> str:
    if not name or name.startswith(".") or "/" in name or "\0" in name:
        raise ValueError("must be usable as a file name: no '/', no leading '.'")
    return name


def _identity(value: str) -> str:
    return str(uuid.UUID(value))


def _connectable(path: Path) -> Path:
    if len(bytes(path)) > _MOST_SOCKET_BYTES:
        raise ValueError(f"must not be longer than {_MOST_SOCKET_BYTES} bytes, or nobody can connect to it")
    return path


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
SocketPath = Annotated[AbsolutePath, AfterValidator(_connectable)]
PlainName = Annotated[str, AfterValidator(_plain_name), Field(max_length=200)]


class Disk(BaseModel):
    """One disk of an instance; its format is said, never guessed, for a raw disk's guest could forge a header."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: PlainName
    path: AbsolutePath
    format: Format
    bootable: bool = False

    @property
    def file(self) -> Path:
        """The file itself, behind any symbolic links."""
        return Path(os.path.realpath(self.path))  # which a loop of links does not disturb

    def source(self, monitor: Path | None) -> FileSource:
        return FileSource(self.path, self.format.value, None if monitor is None else str(monitor))


class DeclaredVdisk(BaseModel):
    """A volume of an instance that lies on an array of the settings, under the name it has there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: PlainName
    vdisk: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9 ._-]{0,62}$")]
    array: str | None = None
    bootable: bool = False

    def source(self, _monitor: Path | None) -> VdiskSource:
        return VdiskSource(self.vdisk, self.array)


class Declaration(BaseModel):
    """A local instance as its file declares it; the first disk or vdisk is the one it boots from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, AfterValidator(_identity)]
    name: PlainName
    project_id: Annotated[str, Field(min_length=1)]
    disks: tuple[Disk, ...] = ()
    vdisks: tuple[DeclaredVdisk, ...] = ()
    qmp_socket: SocketPath | None = None
    guest_agent_socket: SocketPath | None = None
    start_command: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _distinct(self) -> Declaration:
        if not self.attached:
            raise ValueError("there is neither a disk nor a vdisk")
        if len({disk.name for disk in self.attached}) < len(self.attached):
            raise ValueError("two disks have the same name")
        if len({disk.file for disk in self.disks}) < len(self.disks):
            raise ValueError("two disks are the same file")
        if len({(disk.array, disk.vdisk) for disk in self.vdisks}) < len(self.vdisks):
            raise ValueError("two vdisks are the same")
        if self.vdisks and self.qmp_socket is None:
            raise ValueError("without qmp_socket nobody can tell whether an instance with vdisks runs")
        return self

    @property
    def attached(self) -> tuple[Disk | DeclaredVdisk, ...]:
        """Everything that is attached to the instance, in boot order."""
        return (*self.disks, *self.vdisks)

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        """The same as every driver sees it."""
        return tuple(
            Attachment(
                self.volume_id(disk),
                disk.name,
                disk.source(self.qmp_socket),
                bootable=disk.bootable or number == 0,
            )
            for number, disk in enumerate(self.attached)
        )

    def volume_id(self, disk: Disk | DeclaredVdisk) -> str:
        """The id of a disk's volume: it depends on the instance's id and the disk's name, not on its path."""
        return str(uuid.uuid5(_NAMESPACE, f"{self.id}/{disk.name}"))

    def disk(self, volume_id: str) -> Disk | None:
        """The disk behind a volume id, or None."""
        return next((disk for disk in self.disks if self.volume_id(disk) == volume_id), None)


def instance_files(folder: Path) -> list[Path]:
    """The instance files of a folder, none if it is not there; raises `OSError` if it cannot be read.

    A pattern (`glob`) would find nothing there, and say nothing.
    """
    try:
        return sorted(folder / name for name in os.listdir(folder) if name.endswith(_SUFFIX))  # noqa: PTH208  # names only
    except FileNotFoundError:
        return []


class Confirming(Protocol):
    """Tells of a file whether it can be a disk, as the storage driver does that makes its copies."""

    def opened(self, image: Path) -> AbstractContextManager[File]:
        """The image, open in a verified folder; raises `Refused` and `OSError`."""
        ...

    def confirm(self, image: File, form: Format) -> None:
        """Raise `InvalidInput` or `Refused` if it cannot be a disk of this format."""
        ...


class Declarations(Inventory):
    """The folder of instance files; looked through at every call, so that an edited file counts at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = Cache(load, most=_CACHED)

    def all(self) -> list[Declaration]:
        """Every readable declaration by name; one broken file must not hide the others and is logged."""
        found: dict[str, Declaration] = {}
        with translated("reading the folder of the instances"):
            paths = instance_files(self.folder)
        for path in paths:
            try:
                declaration = self._files.get(path)
            except InvalidInput as problem:
                LOG.error("instance file left out: %s", problem)  # noqa: TRY400 -- the message says it all
                continue
            if declaration.id in found:
                LOG.error("instance file left out: %s has the id of '%s'", path, found[declaration.id].name)
                continue
            found[declaration.id] = declaration
        return sorted(found.values(), key=lambda one: (one.name, one.id))

    def attached(self) -> list[Attached]:
        """See `Inventory`."""
        return [
            Attached(one.id, one.name, one.project_id, attachment)
            for one in self.all()
            for attachment in one.attachments
        ]

    def instance(self, instance_id: str) -> Declaration:
        """The declaration of one instance; raises `NotFound`."""
        for declaration in self.all():
            if declaration.id == instance_id:
                return declaration
        raise NotFound(f"No instance {instance_id} is declared in '{self.folder}'.")

    def volume(self, volume_id: str) -> tuple[Declaration, Disk]:
        """The instance and disk behind a volume id; raises `NotFound`."""
        for declaration in self.all():
            disk = declaration.disk(volume_id)
            if disk is not None:
                return declaration, disk
        raise NotFound(f"No disk with the volume id {volume_id} is declared in '{self.folder}'.")

    def disks(self) -> Iterator[tuple[Declaration, Disk]]:
        """Every declared disk with its instance."""
        for declaration in self.all():
            for disk in declaration.disks:
                yield declaration, disk

    def add(self, files: Files, images: Confirming, declaration: Declaration) -> Path:
        """Declare an instance and return its file; raises `InvalidInput` or `Conflict` before anything is written."""
        path = self.folder / f"{declaration.name}{_SUFFIX}"
        if any(one.id == declaration.id for one in self.all()):
            raise Conflict(f"An instance with the id {declaration.id} is declared already; choose another id, or none.")
        seen: set[tuple[int, int]] = set()
        disks = [
            self._resolved(images, disk, f"disks.{number}.path", seen) for number, disk in enumerate(declaration.disks)
        ]
        for vdisk in declaration.vdisks:
            for other in self.all():
                if any((one.vdisk, one.array) == (vdisk.vdisk, vdisk.array) for one in other.vdisks):
                    raise Conflict(
                        f"The vdisk '{vdisk.vdisk}' belongs to instance '{other.name}' already; "
                        "take it out of one of them."
                    )
        content = tomli_w.dumps(
            declaration.model_copy(update={"disks": tuple(disks)}).model_dump(mode="json", exclude_none=True)
        )
        with translated("declaring the instance"):
            files.make_folder(self.folder)
            try:
                files.write_new(path, content.encode())
            except FileExistsError:
                raise Conflict(f"{path} exists already; remove it or choose another name.") from None
        return path

    def remove(self, files: Files, name: str) -> None:
        """Forget an instance; its disks and copies stay as they are. Raises `NotFound`."""
        path = self.folder / f"{_plain_name(name)}{_SUFFIX}"
        if not path.is_file():
            raise NotFound(f"{path} does not exist.")
        with translated("removing the declaration"):
            files.remove(path)
            files.sync(self.folder)

    def _resolved(self, images: Confirming, disk: Disk, key: str, seen: set[tuple[int, int]]) -> Disk:
        """The disk as it is declared: by the path behind all links, so that a later change of a link has no effect."""
        try:
            with images.opened(disk.path) as file:
                self._require_free(disk, file, key, seen)
                images.confirm(file, disk.format)
                return disk.model_copy(update={"path": file.path})
        except OSError as problem:
            raise InvalidInput(f"{disk.path} cannot be opened: {problem.strerror}", key) from None
        except Unverified as problem:
            why = f"the folder {problem.folder} {problem.why} could swap the files in it; mend it: {problem.mend}"
            raise InvalidInput(f"{disk.path}: {why}", key) from None
        except InvalidInput as problem:
            raise InvalidInput(f"{disk.path}: {problem.message}", key) from None
        except Refused as problem:
            kind = NotSupported if isinstance(problem, NotSupported) else Refused
            raise kind(f"{key}: {disk.path}: {problem.message}") from None

    def _require_free(self, disk: Disk, file: File, key: str, seen: set[tuple[int, int]]) -> None:
        inode = file.found.st_dev, file.found.st_ino
        if inode in seen:
            raise Conflict(f"{key}: {disk.path} is the same file as another disk of this instance; name it once.")
        seen.add(inode)
        for other, taken in self.disks():
            if same_file(taken.path, file.path):
                raise Conflict(
                    f"{key}: {disk.path} is disk '{taken.name}' of instance '{other.name}' already; take it out of "
                    "one of them."
                )


def load(path: Path) -> Declaration:
    """One instance file; raises `InvalidInput` that names the file and the key."""
    try:
        with path.open("rb") as file:
            content: dict[str, Any] = tomllib.load(file)
        return Declaration.model_validate(content)
    except OSError as problem:
        raise InvalidInput(f"{path}: cannot be read: {problem.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise InvalidInput(f"{path}: is not TOML: {problem}") from None
    except ValidationError as problem:
        first = problem.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(f"{path}: {first['msg']}", key or None) from None
