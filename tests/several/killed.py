"""A process that forks services over files and two arrays, and kills them between the cuts of the drivers."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from falcon.testing import TestClient

from stillframe import main
from stillframe.drivers.platform import Drivers, Offer
from stillframe.settings import load
from tests.crash.stage import settle
from tests.harness.client import client_of
from tests.harness.forks import apart, serve
from tests.harness.surround import surround
from tests.lab.storage_virtualize.array import Array
from tests.lab.storage_virtualize.server import SimulatedArray
from tests.several.stage import INSTANCE, PROJECT, joined, make, parts


class Death:
    """Comes when these drivers have cut, and no other one has begun to; where there are none, before the first cut."""

    def __init__(self, after: list[str]) -> None:
        self._left = set(after)
        self._lock = threading.Lock()

    def around(self, driver: str) -> Callable[..., Any]:
        def cut(name: str, method: Callable[..., Any], args: Any, kwargs: Any) -> Any:
            if name != "cut":
                return method(*args, **kwargs)
            if driver not in self._left:
                self._come_if_due()
                threading.Event().wait()
            made = method(*args, **kwargs)
            with self._lock:
                self._left.discard(driver)
            self._come_if_due()
            threading.Event().wait()
            return made

        return cut

    def _come_if_due(self) -> None:
        with self._lock:
            if not self._left:
                os.kill(os.getpid(), signal.SIGKILL)


def _drivers(root: Path, death: Death | None) -> Drivers:
    qemu, files, arrays = parts(load([str(root / "stillframe.conf")]))
    if death is None:
        return joined(qemu, files, arrays)

    def struck(offer: Offer, name: str) -> Offer:
        return Offer(offer.compute, surround(offer.storage, death.around(name)), offer.abilities)

    return joined(qemu, struck(files, "files"), struck(arrays, "storage_virtualize"))


def _service(root: Path, death: Death | None) -> main.Service:
    return main.build(load([str(root / "stillframe.conf")]), drivers=_drivers(root, death))


def play(root: Path, order: dict[str, Any]) -> dict[str, Any]:
    """Start a service, send it one request, and wait for the end of what that began, or of this process."""
    service = _service(root, None if order["after"] is None else Death(order["after"]))
    service.start()
    reply = _ask(client_of(service.wsgi), order["request"])
    settle(service)
    service.stop()
    return {"status": reply.status_code, "reply": reply.text}


def recover(root: Path, _order: dict[str, Any]) -> dict[str, Any]:
    """Start a service on what is left, wait until it has put everything in order, and tell of it."""
    service = _service(root, None)
    service.start()
    settle(service)
    client, path = client_of(service.wsgi), f"/volume/v3/{PROJECT}/instance-snapshots"
    listed = client.simulate_get(path).json["instance_snapshots"]
    shown = [client.simulate_get(f"{path}/{one['id']}").json["instance_snapshot"] for one in listed]
    copies = sorted([str(one.driver), one.name.volume_id, one.ready] for one in service.drivers.storage.find(None))
    service.stop()
    return {"snapshots": shown, "copies": copies}


def _ask(client: TestClient, request: str) -> Any:
    action = f"/compute/v2.1/{PROJECT}/servers/{INSTANCE}/action"
    if request == "create":
        return client.simulate_post(action, json={"vm-snapshot": {"name": "kept", "description": ""}})
    listed = client.simulate_get(f"/volume/v3/{PROJECT}/instance-snapshots").json["instance_snapshots"]
    return client.simulate_post(action, json={"vm-restore": {"instance_snapshot_id": listed[0]["id"]}})


def _warm_up() -> None:
    """Load and compile everything once, before the first fork; no thread is started by that."""
    with TemporaryDirectory() as folder:
        arrays = {name: SimulatedArray(Array(name), Path(folder)) for name in ("a", "b")}
        make(Path(folder), arrays)
        _service(Path(folder), None).database.close()


if __name__ == "__main__":
    serve({"play": apart(play), "recover": apart(recover)}, _warm_up)
