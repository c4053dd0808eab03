"""Builds what the lab guest boots from: the distribution's own kernel and an initramfs of a few files."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
MODULES: Final = ("virtio_pci", "virtio_blk", "virtio_console", "evdev", "button")
APPLETS: Final = (
    *("acpid", "cat", "dmesg", "insmod", "killall", "ls", "mount", "poweroff", "ps", "seq", "sh", "sleep", "sync"),
    *("umount", "usleep"),
)
DIRECTORIES: Final = ("bin", "data", "dev", "etc", "modules", "proc", "run", "sbin", "sys", "tmp", "var")


class GuestUnavailableError(RuntimeError):
    """This machine lacks something that the lab guest is made of; the message names it."""


@dataclass(frozen=True, slots=True)
class Image:
    """What QEMU boots."""

    kernel: Path
    initramfs: Path


def build_image(cache: Path) -> Image:
    """The guest's kernel and initramfs, the latter made in `cache` unless it is there already."""
    version = _kernel_version()
    agent, busybox = _program("qemu-ga"), _program("busybox")
    modules = _modules(version)
    sources = (HERE / "writer.c", HERE / "init", HERE / "shutdown", HERE / "image.py")
    key = hashlib.sha256()
    for source in (*sources, agent, busybox, *modules):
        status = source.stat()
        key.update(f"{source} {status.st_size} {status.st_mtime_ns}\n".encode())
    cache.mkdir(parents=True, exist_ok=True)
    initramfs = cache / f"initramfs-{version}-{key.hexdigest()[:16]}"
    if not initramfs.exists():
        partial = initramfs.with_name(f"{initramfs.name}.{os.getpid()}")
        partial.write_bytes(_archive(_compile_writer(cache), agent, busybox, modules))
        partial.replace(initramfs)
    return Image(Path(f"/boot/vmlinuz-{version}"), initramfs)


def _archive(writer: Path, agent: Path, busybox: Path, modules: list[Path]) -> bytes:
    archive = _Cpio()
    for name in DIRECTORIES:
        archive.directory(name)
    archive.program("bin/busybox", busybox.read_bytes())
    for applet in APPLETS:
        archive.link(f"bin/{applet}", "busybox")
    archive.program("bin/writer", writer.read_bytes())
    archive.program("usr/sbin/qemu-ga", agent.read_bytes())
    for library in _libraries(agent):
        archive.program(str(library).lstrip("/"), library.read_bytes())
    for module in modules:
        archive.program(f"modules/{_plain_name(module)}", _plain(module))
    archive.program("modules/order", "".join(f"{_plain_name(module)}\n" for module in modules).encode())
    archive.program("init", (HERE / "init").read_bytes())
    archive.program("sbin/shutdown", (HERE / "shutdown").read_bytes())
    archive.link("etc/acpi/PWRF/00000080", "/sbin/shutdown")
    archive.link("var/run", "/run")
    archive.device("dev/console", 5, 1)
    archive.device("dev/null", 1, 3)
    return archive.finish()


class _Cpio:
    """An archive in the `newc` format, which the kernel unpacks as its first root; parents are made as needed."""

    def __init__(self) -> None:
        self._content = bytearray()
        self._directories: set[str] = set()
        self._inode = 0

    def directory(self, name: str) -> None:
        if name not in self._directories:
            self._parents(name)
            self._directories.add(name)
            self._add(name, 0o040755, b"")

    def program(self, name: str, content: bytes) -> None:
        self._parents(name)
        self._add(name, 0o100755, content)

    def link(self, name: str, target: str) -> None:
        self._parents(name)
        self._add(name, 0o120777, target.encode())

    def device(self, name: str, major: int, minor: int) -> None:
        self._parents(name)
        self._add(name, 0o020600, b"", major, minor)

    def finish(self) -> bytes:
        self._add("TRAILER!!!", 0, b"")
        return bytes(self._content)

    def _parents(self, name: str) -> None:
        parent = name.rpartition("/")[0]
        if parent:
            self.directory(parent)

    def _add(self, name: str, mode: int, content: bytes, major: int = 0, minor: int = 0) -> None:
        self._inode += 1
        encoded = name.encode() + b"\0"
        # inode, mode, uid, gid, links, mtime, size, device of the file, device it stands for, name's size, checksum
        fields = (self._inode, mode, 0, 0, 1, 0, len(content), 0, 0, major, minor, len(encoded), 0)
        self._content += b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        self._pad()
        self._content += content
        self._pad()

    def _pad(self) -> None:
        self._content += bytes(-len(self._content) % 4)


def _kernel_version() -> str:
    """The newest installed kernel for virtual machines that has its modules."""
    versions = [path.name.removeprefix("vmlinuz-") for path in Path("/boot").glob("vmlinuz-*-cloud-*")]
    usable = [version for version in versions if Path("/lib/modules", version, "modules.dep").exists()]
    if not usable:
        raise GuestUnavailableError("no kernel with modules in /boot, install linux-image-cloud-amd64")
    return max(usable, key=lambda version: [int(number) for number in re.findall(r"\d+", version)])


def _program(name: str) -> Path:
    """A program's file, also where only root looks for programs."""
    found = shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    if found is None:
        raise GuestUnavailableError(f"no {name}; needed are qemu-guest-agent, busybox-static, kmod and gcc")
    return Path(found)


def _modules(version: str) -> list[Path]:
    """The files of the modules and of what they depend on, in the order of loading."""
    modprobe = str(_program("modprobe"))
    files: dict[Path, None] = {}
    for module in MODULES:
        arguments = [modprobe, "-C", "/dev/null", "--show-depends", "-S", version, module]
        answer = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout
        for line in answer.splitlines():
            verb, _, rest = line.partition(" ")
            if verb == "insmod":  # the other verb is `builtin`
                files[Path(rest.split()[0])] = None
    return list(files)


def _plain_name(module: Path) -> str:
    return module.name.partition(".ko")[0] + ".ko"


def _plain(module: Path) -> bytes:
    content = module.read_bytes()
    match module.suffix:
        case ".xz":
            return lzma.decompress(content)
        case ".gz":
            return gzip.decompress(content)
        case ".zst":
            return subprocess.run(["zstd", "-dc"], input=content, check=True, capture_output=True).stdout
        case _:
            return content


def _libraries(program: Path) -> list[Path]:
    answer = subprocess.run(["ldd", str(program)], check=True, capture_output=True, text=True).stdout
    return [Path(found) for found in re.findall(r"(/\S+) \(0x", answer)]


def _compile_writer(cache: Path) -> Path:
    source = HERE / "writer.c"
    writer = cache / f"writer-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}"
    if not writer.exists():
        partial = writer.with_name(f"{writer.name}.{os.getpid()}")
        options = ("-std=gnu11", "-O2", "-static", "-Wall", "-Wextra", "-Werror", "-Wno-sign-compare")
        subprocess.run([str(_program("gcc")), *options, "-o", str(partial), str(source)], check=True)
        partial.replace(writer)
    return writer
