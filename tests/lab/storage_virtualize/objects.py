"""What a simulated array consists of. Bytes are kept by the grain: held, or read through another vdisk."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

GRAIN: Final = 64 << 10

#: What a target reads as that was cut off from what it depended on.
JUNK: Final = b"\xde\xad" * (GRAIN // 2)


class Refusal(Exception):
    """A command was refused: a CMMVC code and its text."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code


@dataclass(eq=False)
class Vdisk:
    """A volume. A grain is held as bytes, or is the vdisk through which it is read."""

    id: int
    name: str
    size: int
    pool: str
    grains: list[bytes | Vdisk]
    iogrp: int = 0
    online: bool = True
    remote_copy: str = ""
    volume_group: str = ""
    replication_mode: str = ""
    mapped_to_host: bool = False
    mirrored: bool = False
    hidden: bool = False

    @property
    def uid(self) -> str:
        return f"60050768AC{self.id:022X}"

    def resolve(self, grain: int) -> bytes:
        """The bytes of a grain, wherever they are held."""
        at: bytes | Vdisk = self
        while isinstance(at, Vdisk):
            at = at.grains[grain]
        return at

    def reads_through(self, other: Vdisk, grain: int) -> bool:
        """Whether the way to a grain's bytes leads through another vdisk."""
        at: bytes | Vdisk = self
        while isinstance(at, Vdisk):
            if at is other:
                return True
            at = at.grains[grain]
        return False

    def held(self) -> int:
        """How many grains are held here."""
        return sum(isinstance(grain, bytes) for grain in self.grains)


@dataclass(eq=False)
class Mapping:
    """A FlashCopy mapping; `budget` are bytes that may be copied or cleaned but were not enough for a grain."""

    id: int
    name: str
    source: Vdisk
    target: Vdisk
    copy_rate: int = 50
    clean_rate: int = 50
    autodelete: bool = False
    group: Group | None = None
    status: str = "idle_or_copied"
    started: bool = False
    restoring: bool = False
    prepared_at: float = 0.0
    start_time: str = ""
    budget: float = 0.0
    rc_controlled: bool = False
    hidden: bool = False
    to_clean: int = 0

    @property
    def progress(self) -> int:
        """Grains of the target that do not depend on the source, in per cent and rounded down."""
        return 100 * self.target.held() // len(self.target.grains) if self.started else 0

    @property
    def active(self) -> bool:
        return self.status in ("copying", "suspended", "stopping")


@dataclass(eq=False)
class Group:
    """A FlashCopy consistency group."""

    id: int
    name: str
    start_time: str = ""


@dataclass(eq=False)
class Snapshot:
    """A snapshot of volumes without a volume group: hidden vdisks behind hidden mappings, under one name."""

    id: int
    name: str
    mappings: list[Mapping] = field(default_factory=list)
    restores: list[Mapping] = field(default_factory=list)
    deleting: bool = False
    created: str = ""


@dataclass
class Limits:
    """What the array refuses to exceed; capacities in bytes."""

    groups: int = 512
    mappings_of_a_source: int = 256
    vdisks: int = 15864
    pool_capacity: int = 1 << 40


@dataclass
class Behaviour:
    """What differs between arrays, or is not known of them.

    `speed` multiplies copy and clean rates. `flush_seconds` is how long a mapping is preparing, and
    `flush_failures` how many of the next ones fall back to stopped instead of being prepared then. `linger`: a reverse
    mapping that is through stays `copying` at 100 % as long as its target is the source of an active mapping.
    """

    code_level: str = "8.5.0.9 (build 157.22.2208261243000)"
    speed: float = 1.0
    flush_seconds: float = 0.02
    flush_failures: int = 0
    linger: bool = False
    protect_volumes: bool = False
    token_seconds: float = 3600.0
    role: str = "Administrator"
    requests_a_second: float | None = None
    sign_ins_a_second: float | None = None
    #: How many tokens are good at a time.
    tokens: int | None = None
    #: Whether commands may call a snapshot by its number.
    snapshot_numbers: bool = True
