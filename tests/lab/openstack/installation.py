"""What is installed once and kept: the virtualenv of the services, keyed by its pins, in the lab's cache folder."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["cache_folder", "install", "installed", "locked", "missing_packages"]

PINS = Path(__file__).with_name("requirements.lock")
BUILD_PINS = Path(__file__).with_name("build.lock")
_PROGRAMS = {
    "mariadbd": "mariadb-server",
    "mariadb-install-db": "mariadb-server",
    "/usr/lib/rabbitmq/bin/rabbitmq-server": "rabbitmq-server",
    "qemu-img": "qemu-utils",
}
_CEPH_PROGRAMS = {"ceph-mon": "ceph-mon", "ceph-osd": "ceph-osd", "rbd": "ceph-common"}
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


# The one change to what is installed: a process that waits for the reply of a call looks for it every half second,
# which makes the boot of a server last ten seconds. (It blocks until the reply is there from oslo.messaging 18 on.)
_PATIENT = ("oslo_messaging/_drivers/amqpdriver.py", "time.sleep(0.5)", "time.sleep(0.01)")


def cache_folder() -> Path:
    """Where installations are kept: `LAB_CACHE`, by default ~/.cache/stillframe-lab."""
    folder = Path(os.environ.get("LAB_CACHE") or Path.home() / ".cache" / "stillframe-lab")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def missing_packages(*, ceph: bool = False) -> list[str]:
    """The Debian packages that a lab needs and does not find."""
    programs = {**_PROGRAMS, **(_CEPH_PROGRAMS if ceph else {})}
    missing = {package for program, package in programs.items() if shutil.which(program, path=_PATH) is None}
    if ceph and not list(Path("/usr/lib/python3/dist-packages").glob("rbd.*.so")):
        missing.add("python3-rbd")
    return sorted(missing)


def installed() -> Path:
    """The virtualenv of the services; installed where these pins are not yet."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    key = hashlib.sha256(BUILD_PINS.read_bytes() + PINS.read_bytes() + f"{version}{_PATIENT}".encode()).hexdigest()[:12]
    folder = cache_folder()
    venv = folder / f"venv-{key}"
    with locked(folder / "lock"):
        if not (venv / "complete").exists():
            shutil.rmtree(venv, ignore_errors=True)
            install(venv, PINS)
            _hurry(venv / "lib" / f"python{version}" / "site-packages")
            (venv / "complete").touch()
    return venv


def install(venv: Path, pins: Path) -> None:
    """Make a virtualenv of what a lock names; what has no wheel is built by what is pinned, too."""
    uv = str(Path(sys.executable).with_name("uv"))
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(venv)], check=True)
    hashed = ["--quiet", "--python", str(venv), "--require-hashes"]
    subprocess.run([uv, "pip", "install", *hashed, "--no-build", "--requirement", str(BUILD_PINS)], check=True)
    sync = [uv, "pip", "sync", *hashed, "--no-build-isolation", "--compile-bytecode", str(pins)]
    subprocess.run(sync, check=True)


def _hurry(packages: Path) -> None:
    name, before, after = _PATIENT
    code = (packages / name).read_text()
    if code.count(before) != 1:
        raise RuntimeError(f"{name} is not what it was")
    # uv links files from its cache, which must stay as they are.
    (packages / name).unlink()
    (packages / name).write_text(code.replace(before, after))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file against other processes."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
