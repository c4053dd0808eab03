"""A driver and a simulated array in one process: no connection between them, so that a story takes milliseconds."""

from __future__ import annotations

import io
import itertools
import json
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import requests
import urllib3

from stillframe.domain.errors import Interrupted
from stillframe.domain.instance import Attachment, CinderSource, Instance, PowerState, Volume
from stillframe.domain.snapshot import CopyKind, CopyName
from stillframe.drivers.call import Call
from stillframe.drivers.storage_virtualize.array import Array
from stillframe.drivers.storage_virtualize.arrays import Arrays
from stillframe.drivers.storage_virtualize.client import Client
from stillframe.drivers.storage_virtualize.options import ArrayOptions, Options, Strategy
from stillframe.drivers.storage_virtualize.storage import StorageVirtualize
from stillframe.drivers.storage_virtualize.volumes import ManagedVolumes
from stillframe.foreign.session import Bounded
from tests.lab.storage_virtualize import commands
from tests.lab.storage_virtualize.array import Array as Simulated
from tests.lab.storage_virtualize.faults import Faults
from tests.lab.storage_virtualize.objects import GRAIN, Behaviour, Refusal

VOLUME: Final = "33333333-3333-3333-3333-333333333333"
SNAPSHOT: Final = "44444444-4444-4444-4444-444444444444"
OPERATION: Final = "55555555-5555-5555-5555-555555555555"
NAME: Final = CopyName(CopyKind.SNAPSHOT, SNAPSHOT, VOLUME, OPERATION)
VDISK: Final = f"volume-{VOLUME}"
SIZE: Final = 4 * GRAIN
#: What the driver sends for each strategy, but to sign in and to ask for the array's level.
COMMANDS: Final = {
    Strategy.FLASHCOPY: (
        "lsvdisk",
        "lsfcmap",
        "lsfcconsistgrp",
        "mkvdisk",
        "mkfcconsistgrp",
        "mkfcmap",
        "prestartfcconsistgrp",
        "startfcconsistgrp",
        "rmfcconsistgrp",
        "startfcmap",
        "stopfcmap",
        "rmfcmap",
        "rmvdisk",
    ),
    Strategy.SNAPSHOTS: ("lsvolumesnapshot", "addsnapshot", "chsnapshot", "restorefromsnapshot", "rmsnapshot"),
}
INSTANCE: Final = Instance("i", "p", "vm", PowerState.SHUTOFF, (Attachment(VOLUME, "vda", CinderSource()),))


class Wire(Bounded):
    """Hands requests to the array, and its answers back; faults of the ways `fail` and `refuse after` befall them."""

    def __init__(self, array: Simulated) -> None:
        super().__init__()
        self.array, self.faults = array, Faults()

    def send(self, request: requests.PreparedRequest, *_args: Any, **_kwargs: Any) -> requests.Response:
        status, answer = self._answer(request)
        content = b"" if answer is None else json.dumps(answer).encode()
        reply = urllib3.HTTPResponse(io.BytesIO(content), status=status, preload_content=False)
        return self.build_response(request, reply)

    def _answer(self, request: requests.PreparedRequest) -> tuple[int, Any]:
        parts = [unquote(part) for part in urlsplit(request.url or "").path.split("/")[3:]]
        if parts[0] == "auth":
            return 200, {"token": "token"}
        subject = parts[1] if len(parts) > 1 else None
        given = json.loads(request.body or b"{}")
        fault = self.faults.next(parts[0], subject or str(given.get("name", "")), force=bool(given.get("force")))
        refused = 500, f"{fault.code} as the test wished" if fault else ""
        if fault and fault.way == "fail":
            return refused
        try:
            answer = commands.run(self.array, parts[0], subject, given)
        except Refusal as refusal:
            return 500, str(refusal)
        return refused if fault else (200, answer)


class Platform:
    """The one volume that a platform has on the array."""

    def list_volumes(self, project_id: str | None) -> list[Volume]:  # noqa: ARG002  # of the port
        return [self.get_volume(VOLUME)]

    def get_volume(self, volume_id: str) -> Volume:
        return Volume(volume_id, "p", "v", SIZE, "in-use", instance_id="i")


class Story:
    """A driver that speaks to an array with one volume."""

    def __init__(self, strategy: Strategy) -> None:
        self.array = Simulated(behaviour=Behaviour(speed=1e6, flush_seconds=0.0, code_level="8.6.2.0 (build 1)"))
        self.array.add_vdisk(VDISK, SIZE)
        self.wire = Wire(self.array)
        address = ArrayOptions("a", "http://array.test", "u", "p", timeout=20, first_wait=0.0)
        arrays = Arrays([Array(Client(address, self.wire))])
        volumes = ManagedVolumes(Platform(), "volume-%s")  # type: ignore[arg-type]  # only what it asks for
        options = Options(poll_seconds=0.0, strategy=strategy, copy_rate=150)
        self.storage = StorageVirtualize(options, arrays, volumes)
        self._checks = itertools.count()

    def call(self) -> Call:
        return Call(OPERATION, "req-1", self._bounded, lambda _done, _total: None)

    def _bounded(self) -> None:
        if next(self._checks) > 2000:
            raise Interrupted("the operation is past its deadline, as the test wished")

    def cut(self) -> str:
        """A copy of the volume, as the flow makes it: what an earlier attempt left is dropped first."""
        self.clear()
        self.storage.check_cut(INSTANCE, [VOLUME])
        prepared = self.storage.prepare_cut(self.call(), INSTANCE, [NAME])
        return self.storage.cut(self.call(), INSTANCE, [NAME], prepared).snapshots[0].id

    def clear(self) -> None:
        for copy in self.storage.find(SNAPSHOT, "i"):
            self.storage.delete(self.call(), copy.reference)

    def write(self, letter: str, grain: int = 0) -> None:
        self.array.write(VDISK, grain * GRAIN, letter.encode() * GRAIN)

    def read(self) -> str:
        content = self.array.read(VDISK)
        return "".join(chr(content[grain * GRAIN] or ord("-")) for grain in range(SIZE // GRAIN))

    def objects(self) -> list[str]:
        """The names of everything on the array."""
        for _ in range(20):
            self.array.advance()
        held = (self.array.mappings, self.array.snapshots)
        return sorted([*self.array.vdisks, *self.array.groups, *(one.name for kind in held for one in kind.values())])
