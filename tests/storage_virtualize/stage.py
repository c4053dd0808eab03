"""A process that forks services whose volumes lie on a simulated array, and kills them between its commands."""

from __future__ import annotations

import io
import ssl
import uuid
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from urllib.parse import urlsplit

import requests
import sqlalchemy as sa
import urllib3
from falcon.testing import TestClient

from stillframe import main
from stillframe.drivers.platform import Drivers
from stillframe.drivers.qemu import options as qemu_options
from stillframe.drivers.qemu.declaration import Declarations
from stillframe.drivers.registry import open_drivers
from stillframe.drivers.storage_virtualize.array import Array
from stillframe.drivers.storage_virtualize.arrays import Arrays
from stillframe.drivers.storage_virtualize.client import Client
from stillframe.drivers.storage_virtualize.options import read
from stillframe.drivers.storage_virtualize.storage import StorageVirtualize
from stillframe.drivers.storage_virtualize.volumes import DeclaredVolumes
from stillframe.foreign.session import Bounded
from stillframe.settings import Settings, load
from stillframe.store.tables import FENCES, INSTANCE_LOCKS, SNAPSHOTS
from tests.crash.points import Points
from tests.crash.stage import settle
from tests.harness.client import client_of
from tests.harness.forks import apart, serve
from tests.lab.storage_virtualize.server import PASSWORD, USER

#: The volumes of the one instance, by the names of their vdisks.
VOLUMES: Final = ("a", "b")


class StruckAdapter(Bounded):
    """Counts the commands that change something, and strikes at one of them."""

    def __init__(self, points: Points) -> None:
        super().__init__()
        self._points = points

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        command = urlsplit(request.url or "").path.split("/")[3]
        if command == "auth" or command.startswith("ls"):
            return super().send(request, *args, **kwargs)
        if self._points.strike == "kill":
            self._points.pass_by(f"before {command}")
            reply = super().send(request, *args, **kwargs)
            self._points.pass_by(f"after {command}")
            return reply
        if not self._points.pass_by(command):
            return super().send(request, *args, **kwargs)
        if self._points.strike == "refused":
            refusal = urllib3.HTTPResponse(io.BytesIO(b'"CMMVC5903E as the test wished"'), status=500)
            return self.build_response(request, refusal)
        super().send(request, *args, **kwargs)
        raise requests.ConnectionError("the reply was lost, as the test wished")


def make(root: Path, endpoint: str, ca_file: Path, copies: str = "flashcopy") -> None:
    """An instance of two vdisks, and the settings of the service."""
    instances = root / "state" / "instances"
    instances.mkdir(parents=True)
    lines = ['name = "vm"', 'project_id = "demo"', f'id = "{uuid.uuid5(uuid.NAMESPACE_OID, str(root))}"']
    lines.append(f'qmp_socket = "{root}/qmp"')
    for name in VOLUMES:
        lines += ["[[vdisks]]", f'name = "{name}"', f'vdisk = "{name}"']
    (instances / "vm.toml").write_text("\n".join(lines))
    (root / "stillframe.conf").write_text(f"""
[DEFAULT]
state_dir = {root}/state
auth_strategy = noauth
[database]
sqlite_synchronous = NORMAL
[drivers]
storage = storage_virtualize
first_wait = 0.01
longest_wait = 0.05
[storage_virtualize]
arrays = a
poll_seconds = 0.01
copies = {copies}
[array:a]
endpoint = {endpoint}
username = {USER}
password = {PASSWORD}
ca_file = {ca_file}
commands_a_second = 1000
""")


def settings_of(root: Path) -> Settings:
    return load([str(root / "stillframe.conf")])


def struck_drivers(settings: Settings, points: Points) -> Drivers:
    """The drivers as they are put together otherwise, with the points in the connection to the array."""
    options = read(settings)
    plain = open_drivers(settings)
    client = Client(options.arrays[0], StruckAdapter(points))
    arrays = Arrays([Array(client)])
    volumes = DeclaredVolumes(Declarations(qemu_options.read(settings).instances), arrays)
    return Drivers(plain.compute, StorageVirtualize(options, arrays, volumes), plain.abilities)


def play(root: Path, order: dict[str, Any]) -> dict[str, Any]:
    """Start a service, send it one request, and wait for the end of what that began."""
    settings = settings_of(root)
    points = Points(None, order["strike"])
    service = main.build(settings, drivers=struck_drivers(settings, points))
    service.start()
    points.at = order["at"]
    reply = ask(client_of(service.wsgi), settings, *order["request"].split())
    settle(service)
    outcome = {"seen": list(points.seen), "status": reply.status_code, "reply": reply.text}
    service.stop()
    return outcome


def ask(client: TestClient, settings: Settings, request: str, name: str) -> Any:
    """Send one request of the API, about the snapshot of a name."""
    instance = Declarations(qemu_options.read(settings).instances).all()[0]
    action = f"/compute/v2.1/demo/servers/{instance.id}/action"
    if request == "create":
        return client.simulate_post(action, json={"vm-snapshot": {"name": name, "description": ""}})
    listed = client.simulate_get("/volume/v3/demo/instance-snapshots").json["instance_snapshots"]
    snapshot_id = next(one["id"] for one in listed if one["name"] == name)
    if request == "delete":
        return client.simulate_delete(f"/volume/v3/demo/instance-snapshots/{snapshot_id}")
    body: dict[str, Any] = {"instance_snapshot_id": snapshot_id}
    if request in ("retry", "rollback"):
        body[request] = True
    return client.simulate_post(action, json={"vm-restore": body})


def recover(root: Path, _order: dict[str, Any]) -> dict[str, Any]:
    """Start a service on what is left, wait until it has put everything in order, and tell its rows and copies."""
    settings = settings_of(root)
    service = main.build(settings, drivers=struck_drivers(settings, Points(None)))
    service.start()
    settle(service)
    with service.database.reader.connect() as connection:
        rows = connection.execute(sa.select(SNAPSHOTS).order_by(SNAPSHOTS.c.created_at)).mappings().all()
        fences = connection.execute(sa.select(sa.func.count()).select_from(FENCES)).scalar_one()
        locks = connection.execute(sa.select(sa.func.count()).select_from(INSTANCE_LOCKS)).scalar_one()
    instance = service.drivers.compute.list_instances(None)[0]
    names = dict(zip(instance.volume_ids, VOLUMES, strict=True))
    copies = {one.id: [one.name.kind, names.get(one.name.volume_id), one.ready] for one in _find(service)}
    maps = ("snapshots", "temp_snapshots", "failed_snapshots")
    told = {
        "snapshots": [
            {
                "name": row["name"],
                "status": row["status"],
                "fault": row["fault"] and row["fault"]["code"],
                **{key: row[key] and {names[vol]: copies.get(copy) for vol, copy in row[key].items()} for key in maps},
            }
            for row in rows
        ],
        "copies": sorted(copies.values(), key=str),
        "fences": [fences, service.drivers.compute.fenced_by(instance.id) is not None],
        "locks": locks,
    }
    service.stop()
    return told


def _find(service: main.Service) -> Any:
    return service.drivers.storage.find(None)


def prepare(root: Path, order: dict[str, Any]) -> dict[str, Any]:
    """Play one request without any strike."""
    outcome = play(root, {"strike": "kill", "at": None, "request": order["request"]})
    if outcome["status"] >= 300:
        raise RuntimeError(f"{order['request']}: {outcome}")
    return {}


def _warm_up() -> None:
    """Load and compile everything once, before the first fork; no thread is started by that."""
    with TemporaryDirectory() as folder:
        root = Path(folder)
        ca_file = Path(ssl.get_default_verify_paths().openssl_cafile)
        make(root, "https://127.0.0.1:1", ca_file)
        settings = settings_of(root)
        main.build(settings, drivers=struck_drivers(settings, Points(None))).database.close()


if __name__ == "__main__":
    plays = {"play": play, "recover": recover, "prepare": prepare}
    serve({name: apart(play) for name, play in plays.items()}, _warm_up)
