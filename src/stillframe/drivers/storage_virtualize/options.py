"""What the driver is told by the settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from oslo_config import cfg

from stillframe.settings import Group, Settings


class Strategy(StrEnum):
    """By which kind of copy volumes are cut."""

    FLASHCOPY = "flashcopy"
    SNAPSHOTS = "snapshots"
    AUTO = "auto"


@dataclass(frozen=True, slots=True)
class ArrayOptions:
    """One array: where it is, who we are there, and whom to trust; times in seconds.

    `password_file` is read at each sign-in, so that a changed password needs no restart. `first_wait` is the wait
    after the first answer that says "too many requests"; it doubles from there. With `shared_folder`, one token and
    `commands_a_second` are for all processes that use that folder.
    """

    name: str
    endpoint: str
    username: str
    password: str | None = field(default=None, repr=False)
    password_file: Path | None = None
    ca_file: Path | None = None
    verify_tls: bool = True
    timeout: float = 30.0
    first_wait: float = 1.0
    commands_a_second: int = 10
    shared_folder: Path | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """All arrays, and how copies are made on them; rates as the array's, `poll_seconds` at most 1."""

    arrays: tuple[ArrayOptions, ...] = ()
    volume_name_template: str = "volume-%s"
    copy_rate: int = 100
    clean_rate: int = 50
    strategy: Strategy = Strategy.FLASHCOPY
    poll_seconds: float = 1.0


OPTIONS: Final = [
    cfg.ListOpt("arrays", default=[], help="Names of the arrays. Each needs a group `[array:NAME]`."),
    cfg.StrOpt(
        "volume_name_template",
        default="volume-%s",
        help="How Cinder names its volumes on the arrays; `%s` is the volume's id. The same as Cinder's option of "
        "this name.",
    ),
    cfg.IntOpt(
        "copy_rate",
        default=100,
        min=1,
        max=150,
        help="The array's copy rate for a restore: 50 is 2 MB/s, 100 is 64 MB/s, 150 is 2 GB/s for each volume.",
    ),
    cfg.IntOpt(
        "clean_rate",
        default=50,
        min=1,
        max=150,
        help="The array's clean rate: before a copy is deleted, data that older copies read through it are copied to "
        "them at this rate. Counted as copy_rate.",
    ),
    cfg.StrOpt(
        "copies",
        default=Strategy.FLASHCOPY.value,
        choices=[
            (Strategy.FLASHCOPY.value, "FlashCopy mappings to separate volumes, in a consistency group"),
            (Strategy.SNAPSHOTS.value, "the array's own snapshots, from code level 8.6.2 on"),
            (
                Strategy.AUTO.value,
                "snapshots if the code level has them and no volume has FlashCopy mappings, otherwise mappings",
            ),
        ],
        help="Which kind of copies is made.",
    ),
    cfg.FloatOpt(
        "poll_seconds", default=1.0, min=0.01, max=1.0, help="Seconds between two queries of a copy's progress."
    ),
]
#: The options of each `[array:NAME]`.
ARRAY: Final = [
    cfg.URIOpt("endpoint", schemes=["https"], help="URL of its REST API, such as https://array.example.org:7443."),
    cfg.StrOpt("username", help="The service's user there; its role must allow creating volumes and mappings."),
    cfg.StrOpt("password", secret=True, help="Password of that user; alternatively set `password_file`."),
    cfg.StrOpt("password_file", help="File that contains only the password; it is read at each sign-in."),
    cfg.StrOpt(
        "ca_file", help="File with the CA of its certificate, in PEM; the default is the CAs that this machine trusts."
    ),
    cfg.BoolOpt("verify_tls", default=True, help="Whether its certificate is verified. Do not switch this off."),
    cfg.FloatOpt("timeout", default=30, min=0.1, help="Seconds to wait for an answer."),
    cfg.IntOpt(
        "commands_a_second",
        default=10,
        min=3,
        help="Commands per second that all processes with this `state_dir` send to it together; two are reserved for "
        "cuts.",
    ),
]

GROUPS: Final = (
    Group("storage_virtualize", OPTIONS),
    Group("array", ARRAY, named_by=("storage_virtualize", "arrays")),
)


def read(settings: Settings) -> Options:
    """What the options say; raises `ValueError` for what cannot be used."""
    group = settings.conf.storage_virtualize
    if group.volume_name_template.count("%s") != 1:
        raise ValueError("storage_virtualize.volume_name_template has to contain %s once")
    return Options(
        arrays=tuple(_array(settings, name) for name in group.arrays),
        volume_name_template=group.volume_name_template,
        copy_rate=group.copy_rate,
        clean_rate=group.clean_rate,
        strategy=Strategy(group.copies),
        poll_seconds=group.poll_seconds,
    )


def _array(settings: Settings, name: str) -> ArrayOptions:
    section = f"array:{name}"
    group = settings.conf[section]
    for option in ("endpoint", "username"):
        if not group[option]:
            raise ValueError(f"[{section}] needs {option}")
    if bool(group.password) == bool(group.password_file):
        raise ValueError(f"[{section}] needs either password or password_file")
    return ArrayOptions(
        name=name,
        endpoint=group.endpoint,
        username=group.username,
        password=group.password,
        password_file=Path(group.password_file) if group.password_file else None,
        ca_file=Path(group.ca_file) if group.ca_file else None,
        verify_tls=group.verify_tls,
        timeout=group.timeout,
        commands_a_second=group.commands_a_second,
        shared_folder=settings.state_dir / "arrays",
    )
