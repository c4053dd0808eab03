"""The HTTP of the cloud that is played."""

from __future__ import annotations

import ast
import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit

from tests.lab.scripted.things import SERVICE_PROJECT, SERVICE_USER, Image, Server, Snapshot, Things, Volume

_ROOTS: Final = {"compute": "/compute", "block-storage": "/volume", "image": "/image", "identity": "/identity/v3"}
_TO: Final = {
    "os-stop": ("ACTIVE", "SHUTOFF", "powering-off", "stop"),
    "os-start": ("SHUTOFF", "ACTIVE", "powering-on", "start"),
    "pause": ("ACTIVE", "PAUSED", "pausing", "pause"),
    "unpause": ("PAUSED", "ACTIVE", "unpausing", "unpause"),
    "resume": ("SUSPENDED", "ACTIVE", "resuming", "resume"),
    "reboot": (None, "ACTIVE", "rebooting_hard", "reboot"),
}


#: Of snapshots, as far as they are played.
_COLUMNS: Final = ("id", "name", "status", "volume_id", "project_id", "group_snapshot_id")
#: Of class Snapshot of cinder/db/models.py.
_INDEXED: Final = ("id", "volume_id", "project_id", "group_snapshot_id")
_TRUE: Final = ("1", "t", "true", "on", "y", "yes")
#: `osapi_max_limit`, unless it is set.
_MOST: Final = 1000


@dataclass(frozen=True)
class Answer:
    status: int
    document: Any = None
    kind: str = "application/json"

    def content(self) -> bytes:
        if self.document is None:
            return b""
        return self.document if isinstance(self.document, bytes) else json.dumps(self.document).encode()


_AWAY: Final = Answer(503, b"<html><title>503</title>No server is available.</html>", "text/html")


class Refusal(Exception):
    def __init__(self, status: int, key: str, message: str) -> None:
        super().__init__(message)
        self.answer = Answer(status, {key: {"code": status, "message": message}})


_T = TypeVar("_T", Server, Snapshot)

#: Before a request is answered; what it returns, if anything, is the answer.
Hook = Callable[[], Answer | None]


class ScriptedCloud(Things):
    """The cloud at `url`; made by `scripted_cloud`.

    `away`: services (`compute`, `volume`, ...) that answer 503. `heard`: what was asked, as `METHOD path {body}`.
    `looks`: each list of snapshots that was asked for, and how many of them Cinder's database looked at for it.
    """

    rpc_seconds = 0.2

    def __init__(self) -> None:
        super().__init__()
        self.url = ""
        #: What Keystone's catalogue has: types, regions and where each is.
        self.endpoints = [(kind, "r", root) for kind, root in _ROOTS.items()]
        #: When a token is issued and expires, by Keystone's clock.
        self.token_dates = "2026-01-01T00:00:00.000000Z", "2099-01-01T00:00:00.000000Z"
        self.away: set[str] = set()
        self.heard: list[str] = []
        self.looks: list[tuple[str, int]] = []
        self._hooks: list[tuple[re.Pattern[str], Hook, list[int]]] = []
        self._late: list[Late] = []

    def on(self, request: str, hook: Hook, times: int = 1) -> None:
        """Call the hook before requests that fit a regular expression are answered, for the first `times` of them."""
        self._hooks.append((re.compile(request), hook, [times]))

    def delay(self, request: str, looks: str, number: int, *, silent: float = 0) -> Late:
        """Leave the next request that fits unanswered, and work on it right after so many that fit `looks`.

        Before them `silent` ones that fit are left unanswered, too; `math.inf` is until somebody sets another number.
        """
        late = Late(re.compile(request), re.compile(looks), number, silent)
        self._late.append(late)
        return late

    def asked(self, request: str) -> list[str]:
        """The requests so far that fit a regular expression."""
        return [one for one in self.heard if re.search(request, one)]

    def answer(self, method: str, target: str, body: bytes, project_id: str) -> Answer:
        path, query = urlsplit(target).path, dict(parse_qsl(urlsplit(target).query))
        told = f"{method} {target} {body.decode(errors='replace')}".strip()
        with self.lock:
            self.heard.append(told)
            if path.split("/")[1] in self.away:
                return _AWAY
            for late in self._late:
                if late.work is None and late.request.search(told):
                    late.work = partial(self._work, method, path, query, body, project_id)
                    return _AWAY
                if late.hides(told):
                    return _AWAY
            due = [one for one in self._hooks if one[2][0] > 0 and one[0].search(told)]
            for one in due:
                one[2][0] -= 1
        for _pattern, hook, _times in due:
            answer = hook()
            if answer is not None:
                return answer
        answer = self._work(method, path, query, body, project_id)
        with self.lock:
            for late in self._late:
                late.hear(told)
        return answer

    def _work(self, method: str, path: str, query: dict[str, str], body: bytes, project_id: str) -> Answer:
        try:
            document = json.loads(body) if body else None
            for wanted, pattern, handler in _ROUTES:
                found = re.fullmatch(pattern, path)
                if method == wanted and found:
                    return handler(_Request(self, query, document, project_id), *found.groups())
        except Refusal as refusal:
            return refusal.answer
        return Refusal(404, "itemNotFound", f"there is no {method} {path}").answer


@dataclass
class Late:
    """A request that has not come through yet: `work` is what it asks for, once it was sent; see `delay`."""

    request: re.Pattern[str]
    looks: re.Pattern[str]
    left: int
    silent: float
    work: Callable[[], Answer] | None = None

    def hides(self, told: str) -> bool:
        """Whether a request is left unanswered for its sake."""
        if self.work is None or self.silent <= 0 or not self.looks.search(told):
            return False
        self.silent -= 1
        return True

    def hear(self, told: str) -> None:
        """Of a request that was worked on."""
        if self.work is not None and self.looks.search(told):
            self.left -= 1
            if self.left == 0:
                self.work()


@dataclass(frozen=True)
class _Request:
    cloud: ScriptedCloud
    query: dict[str, str]
    body: Any
    project_id: str


def _find(things: dict[str, Any], kind: str, key: str) -> Any:
    if key not in things:
        raise Refusal(404, "itemNotFound", f"{kind} {key} could not be found.")
    return things[key]


# Keystone.


def _token(request: _Request) -> Answer:
    scope = request.body["auth"].get("scope", {}).get("project", {})
    project_id = scope.get("id") or scope.get("name") or SERVICE_PROJECT
    here, (issued, expires) = request.cloud.url, request.cloud.token_dates
    catalog = [
        {
            "type": kind,
            "id": kind,
            "name": kind,
            "endpoints": [
                {"interface": one, "region_id": region, "region": region, "id": f"{kind}-{one}", "url": here + root}
                for one in ("internal", "public")
            ],
        }
        for kind, region, root in request.cloud.endpoints
    ]
    token = {
        "methods": ["password"],
        "issued_at": issued,
        "expires_at": expires,
        "user": {"id": SERVICE_USER, "name": SERVICE_USER, "domain": {"id": "default", "name": "Default"}},
        "project": {"id": project_id, "name": project_id, "domain": {"id": "default", "name": "Default"}},
        "roles": [{"id": one, "name": one} for one in ("admin", "service")],
        "catalog": catalog,
    }
    return Answer(201, {"token": token})


def _assignments(_request: _Request) -> Answer:
    return Answer(200, {"role_assignments": []})


# Nova.


def _server(cloud: ScriptedCloud, server: Server) -> dict[str, Any]:
    host = cloud.compute
    gone = server.status == "SHELVED_OFFLOADED"
    seen = {"up": "UP", "down": "UNKNOWN"}[host.state] if host.status == "enabled" else "MAINTENANCE"
    return {
        "id": server.id,
        "name": "vm",
        "status": server.status,
        "tenant_id": server.project_id,
        "created": "2026-01-01T00:00:00Z",
        "updated": server.updated,
        "metadata": {},
        "locked": server.locked,
        "locked_reason": server.locked_reason,
        "OS-EXT-STS:task_state": server.task_state,
        "OS-EXT-SRV-ATTR:host": None if gone else host.host,
        "OS-EXT-SRV-ATTR:root_device_name": "/dev/vda",
        "host_status": "" if gone else seen,
        "image": {"id": server.image} if server.image else "",
        "flavor": {"original_name": "small", "vcpus": 1, "ram": 64, **server.flavor},
        "os-extended-volumes:volumes_attached": [{"id": one} for one in server.volumes],
    }


def _get_server(request: _Request, server_id: str) -> Answer:
    server = _find(request.cloud.servers, "Instance", server_id)
    return Answer(200, {"server": _server(request.cloud, server)})


def _list_servers(request: _Request) -> Answer:
    """Nova's filters, of which it has more; none has an index but that of the status."""
    wanted = {key: value for key, value in request.query.items() if key in ("status", "power_state", "locked")}
    found = [one for one in request.cloud.servers.values() if wanted.items() <= _filtered_by(one).items()]
    return _page(request, "servers", found, partial(_server, request.cloud))


def _filtered_by(server: Server) -> dict[str, str]:
    running = server.status == "ACTIVE" and not server.held
    power = "3" if server.held or server.status == "PAUSED" else "1" if running else "4"
    return {"status": server.status, "power_state": power, "locked": str(server.locked).lower()}


def _attachments(request: _Request, server_id: str) -> Answer:
    server = _find(request.cloud.servers, "Instance", server_id)
    first = "b" if server.image else "a"
    devices = (f"/dev/vd{chr(ord(first) + number)}" for number in range(26))
    found = [{"volumeId": one, "device": device} for one, device in zip(server.volumes, devices, strict=False)]
    return Answer(200, {"volumeAttachments": found})


def _actions(request: _Request, server_id: str) -> Answer:
    server = _find(request.cloud.servers, "Instance", server_id)
    told = [
        {"action": action, "request_id": f"req-{number}", "user_id": user}
        for number, (action, user) in enumerate(server.actions)
    ]
    return Answer(200, {"instanceActions": told[::-1]})


def _action(request: _Request, server_id: str, number: str) -> Answer:
    server = _find(request.cloud.servers, "Instance", server_id)
    event = {"event": f"compute_{server.actions[int(number)][0]}_instance", "finish_time": "2026-01-01T00:00:00Z"}
    return Answer(200, {"instanceAction": {"events": [event] if int(number) in server.finished else []}})


def _diagnostics(request: _Request, server_id: str) -> Answer:
    server = _find(request.cloud.servers, "Instance", server_id)
    if not request.cloud.compute.alive:
        time.sleep(request.cloud.rpc_seconds)
        said = "Unexpected API Error. <class 'oslo_messaging.exceptions.MessagingTimeout'>"
        raise Refusal(500, "computeFault", said)
    if server.status != "ACTIVE" or server.held:
        raise Refusal(409, "conflictingRequest", f"Cannot 'get_diagnostics' instance while it is {server.status}")
    return Answer(200, {"state": "running", "driver": "libvirt"})


def _act_on_server(request: _Request, server_id: str) -> Answer:
    cloud, server = request.cloud, _find(request.cloud.servers, "Instance", server_id)
    ((action, arguments),) = request.body.items()
    with cloud.lock:
        if action == "lock":
            server.locked, server.locked_reason = True, (arguments or {}).get("locked_reason")
        elif action == "unlock":
            server.locked, server.locked_reason = False, None
        elif action == "os-resetState":
            server.status, server.task_state = {"active": "ACTIVE", "error": "ERROR"}[arguments["state"]], None
        else:
            before, after, task, word = _TO[action]
            busy = server.task_state is not None and action != "reboot"
            if busy or before not in (None, server.status):
                what = f"task_state {server.task_state}" if busy else f"vm_state {server.status}"
                raise Refusal(
                    409, "conflictingRequest", f"Cannot '{action}' instance {server_id} while it is in {what}"
                )
            server.task_state = task
            server.actions.append((word, SERVICE_USER))
            cloud.switch(server, after, word)
    return Answer(202)


def _services(request: _Request, which: str) -> Answer:
    cloud = request.cloud
    peer = cloud.compute if which == "compute" else cloud.storage
    if peer.binary != request.query.get("binary", peer.binary):
        return Answer(200, {"services": []})
    moment = cloud.now().strftime("%Y-%m-%dT%H:%M:%S.000000")
    told = {"binary": peer.binary, "host": peer.host, "zone": "nova", "status": peer.status, "state": peer.state}
    return Answer(200, {"services": [{**told, "updated_at": moment, "disabled_reason": None}]})


# Cinder.


def _host_capabilities(request: _Request, _host: str) -> Answer:
    if not request.cloud.storage.alive:
        time.sleep(request.cloud.rpc_seconds)
        raise Refusal(502, "badGateway", "Timeout while requesting capabilities from backend cinder-volume.")
    return Answer(200, {"driver_version": "1"})


def _volume(volume: Volume) -> dict[str, Any]:
    attached = [{"server_id": volume.server_id, "attachment_id": f"a-{volume.id}", "device": "/dev/vda"}]
    return {
        "id": volume.id,
        "name": "",
        "status": volume.status,
        "size": volume.size,
        "bootable": volume.bootable,
        "created_at": "2026-01-01T00:00:00.000000",
        "updated_at": volume.changed.strftime("%Y-%m-%dT%H:%M:%S.000000"),
        "metadata": {},
        "attachments": attached if volume.server_id else [],
        "encrypted": False,
        "volume_type": "fast",
        "group_id": None,
        "volume_image_metadata": dict(volume.image_metadata),
        "os-vol-host-attr:host": "storage@fast#pool",
        "os-vol-tenant-attr:tenant_id": "demo",
    }


def _snapshot(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "id": snapshot.id,
        "name": snapshot.name,
        "description": snapshot.description,
        "status": snapshot.status,
        "size": snapshot.size,
        "volume_id": snapshot.volume_id,
        "created_at": snapshot.created.strftime("%Y-%m-%dT%H:%M:%S.000000"),
        "group_snapshot_id": snapshot.group_snapshot_id,
        "os-extended-snapshot-attributes:project_id": snapshot.project_id,
    }


def _get_volume(request: _Request, volume_id: str) -> Answer:
    return Answer(200, {"volume": _volume(_find(request.cloud.volumes, "Volume", volume_id))})


def _list_volumes(request: _Request) -> Answer:
    wanted = ast.literal_eval(request.query["id"]) if "id" in request.query else list(request.cloud.volumes)
    found = [request.cloud.volumes[one] for one in wanted if one in request.cloud.volumes]
    return Answer(200, {"volumes": [_volume(one) for one in found]})


def _get_snapshot(request: _Request, snapshot_id: str) -> Answer:
    return Answer(200, {"snapshot": _snapshot(_find(request.cloud.snapshots, "Snapshot", snapshot_id))})


def _list_snapshots(request: _Request) -> Answer:
    """As `snapshot_get_all` of cinder/db/api.py with MySQL, for administrators, who may ask for any column."""
    filters = {key: value for key, value in request.query.items() if key not in ("limit", "marker", "all_tenants")}
    if request.query.get("all_tenants", "").lower() not in _TRUE:
        filters["project_id"] = request.project_id
    if not filters.keys() <= {*_COLUMNS, "name~"}:
        # A column that there is not, fits none, and nobody is told.
        return Answer(200, {"snapshots": []})
    exact = {key: value for key, value in filters.items() if key in _COLUMNS}
    with request.cloud.lock:
        rows = sorted(request.cloud.snapshots.values(), key=lambda one: (one.created, one.id), reverse=True)
        looks = [sum(getattr(one, key) == exact[key] for one in rows) for key in _INDEXED if key in exact]
        # MySQL does not care for case.
        found = [
            one
            for one in rows
            if all(getattr(one, key) == value for key, value in exact.items())
            and filters.get("name~", "").lower() in one.name.lower()
        ]
        request.cloud.looks.append((urlencode(request.query), min(looks, default=len(rows))))
    return _page(request, "snapshots", found, _snapshot)


def _page(request: _Request, key: str, found: list[_T], show: Callable[[_T], dict[str, Any]]) -> Answer:
    limit, marker = int(request.query.get("limit", _MOST)), request.query.get("marker")
    start = next((number for number, one in enumerate(found, 1) if one.id == marker), 0)
    some = found[start : start + limit]
    # Nova and Cinder tell of a next page wherever one is full.
    links = [{"rel": "next", "href": "..."}] if len(some) == limit else []
    told = {key: [show(one) for one in some], f"{key}_links": links}
    return Answer(200, {name: value for name, value in told.items() if value or name == key})


def _make_snapshot(request: _Request) -> Answer:
    asked = request.body["snapshot"]
    volume = _find(request.cloud.volumes, "Volume", asked["volume_id"])
    if volume.status not in ("available", "in-use"):
        raise Refusal(400, "badRequest", f"Invalid volume: Volume {volume.id} status is {volume.status}")
    with request.cloud.lock:
        made = request.cloud.snap(volume, asked["name"], asked["description"], request.project_id)
    return Answer(202, {"snapshot": _snapshot(made)})


def _delete_snapshot(request: _Request, snapshot_id: str) -> Answer:
    snapshot = _find(request.cloud.snapshots, "Snapshot", snapshot_id)
    if snapshot.status not in ("available", "error"):
        raise Refusal(400, "badRequest", f"Invalid snapshot: it is {snapshot.status}")
    with request.cloud.lock:
        request.cloud.drop(snapshot)
    return Answer(202)


def _act_on_snapshot(request: _Request, snapshot_id: str) -> Answer:
    snapshot = _find(request.cloud.snapshots, "Snapshot", snapshot_id)
    with request.cloud.lock:
        if "os-reset_status" in request.body:
            snapshot.status = request.body["os-reset_status"]["status"]
        else:
            request.cloud.drop(snapshot)
    return Answer(202)


def _act_on_volume(request: _Request, volume_id: str) -> Answer:
    cloud, volume = request.cloud, _find(request.cloud.volumes, "Volume", volume_id)
    ((action, arguments),) = request.body.items()
    with cloud.lock:
        if action == "os-reset_status":
            volume.status = arguments["status"]
        elif action == "os-set_bootable":
            volume.bootable = str(arguments["bootable"]).lower()
        elif action == "os-set_image_metadata":
            volume.image_metadata.update(arguments["metadata"])
        elif action == "os-unset_image_metadata":
            volume.image_metadata.pop(arguments["key"], None)
        else:
            if volume.status != "available":
                raise Refusal(400, "badRequest", f"Invalid volume: Volume {volume_id} status is {volume.status}")
            _begin_to_put_back(cloud, volume, action, arguments, request.project_id)
    return Answer(202)


def _begin_to_put_back(
    cloud: ScriptedCloud, volume: Volume, action: str, arguments: dict[str, str], project_id: str
) -> None:
    if action == "revert":
        snapshot = _find(cloud.snapshots, "Snapshot", arguments["snapshot_id"])
        seen = [
            one
            for one in cloud.snapshots.values()
            if one.volume_id == volume.id and project_id in (SERVICE_PROJECT, one.project_id)
        ]
        if max(seen, key=lambda one: one.created) is not snapshot:
            raise Refusal(400, "badRequest", f"Snapshot {snapshot.id} is not the latest one.")
        if snapshot.status != "available":
            # By then `revert_to_snapshot` of cinder/volume/api.py has written the volume's status.
            volume.status = "reverting"
            raise Refusal(409, "conflictingRequest", f"Snapshot {snapshot.id} is {snapshot.status}.")
        cloud.put_back(volume, snapshot, "reverting")
        return
    image = _find(cloud.images, "Image", arguments["image_id"])
    (device,) = json.loads(image.document["block_device_mapping"])
    volume.bootable, volume.image_metadata = "true", {"image_id": image.id}
    cloud.put_back(volume, _find(cloud.snapshots, "Snapshot", device["snapshot_id"]), "downloading")


def _quotas(_request: _Request, project_id: str) -> Answer:
    usage = {"limit": -1, "in_use": 0, "reserved": 0}
    return Answer(200, {"quota_set": {"id": project_id, "snapshots": usage}})


def _pools(request: _Request) -> Answer:
    pool = {"name": "storage@fast#pool", "capabilities": request.cloud.capabilities}
    return Answer(200, {"pools": [pool]})


def _nothing(key: str) -> Callable[[_Request], Answer]:
    return lambda _request: Answer(200, {key: []})


# Glance.


def _image(image: Image) -> dict[str, Any]:
    moment = image.created.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"id": image.id, "status": "queued", "created_at": moment, "updated_at": moment, **image.document}


def _list_images(request: _Request) -> Answer:
    wanted = {key: value for key, value in request.query.items() if key not in ("owner", "limit")}
    found = [
        one
        for one in list(request.cloud.images.values())
        if all(one.document.get(key) == value for key, value in wanted.items())
    ]
    return Answer(200, {"images": [_image(one) for one in found]})


def _make_image(request: _Request) -> Answer:
    image = Image(str(uuid.uuid4()), dict(request.body), request.cloud.now())
    request.cloud.images[image.id] = image
    return Answer(201, _image(image))


def _fill_image(request: _Request, image_id: str) -> Answer:
    _find(request.cloud.images, "Image", image_id).document["status"] = "active"
    return Answer(204)


def _delete_image(request: _Request, image_id: str) -> Answer:
    _find(request.cloud.images, "Image", image_id)
    del request.cloud.images[image_id]
    return Answer(204)


_ID: Final = r"([\w-]+)"
_ROUTES: Final[list[tuple[str, str, Callable[..., Answer]]]] = [
    ("POST", "/identity/v3/auth/tokens", _token),
    ("GET", "/identity/v3/role_assignments", _assignments),
    ("GET", "/compute/servers/detail", _list_servers),
    ("GET", f"/compute/servers/{_ID}", _get_server),
    ("GET", f"/compute/servers/{_ID}/os-volume_attachments", _attachments),
    ("GET", f"/compute/servers/{_ID}/os-instance-actions", _actions),
    ("GET", f"/compute/servers/{_ID}/os-instance-actions/req-(\\d+)", _action),
    ("GET", f"/compute/servers/{_ID}/diagnostics", _diagnostics),
    ("POST", f"/compute/servers/{_ID}/action", _act_on_server),
    ("GET", "/(compute|volume)/os-services", _services),
    ("GET", "/volume/volumes/detail", _list_volumes),
    ("GET", f"/volume/volumes/{_ID}", _get_volume),
    ("POST", f"/volume/volumes/{_ID}/action", _act_on_volume),
    ("GET", "/volume/snapshots/detail", _list_snapshots),
    ("POST", "/volume/snapshots", _make_snapshot),
    ("GET", f"/volume/snapshots/{_ID}", _get_snapshot),
    ("DELETE", f"/volume/snapshots/{_ID}", _delete_snapshot),
    ("POST", f"/volume/snapshots/{_ID}/action", _act_on_snapshot),
    ("GET", "/volume/group_snapshots/detail", _nothing("group_snapshots")),
    ("GET", "/volume/capabilities/(.+)", _host_capabilities),
    ("GET", "/volume/extensions", _nothing("extensions")),
    ("GET", "/volume/scheduler-stats/get_pools", _pools),
    ("GET", f"/volume/os-quota-sets/{_ID}", _quotas),
    ("GET", "/image/v2/images", _list_images),
    ("POST", "/image/v2/images", _make_image),
    ("PUT", f"/image/v2/images/{_ID}/file", _fill_image),
    ("DELETE", f"/image/v2/images/{_ID}", _delete_image),
]


@contextmanager
def scripted_cloud() -> Iterator[ScriptedCloud]:
    """Play a cloud on loopback until the block ends."""
    cloud = ScriptedCloud()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            project_id = (self.headers.get("X-Auth-Token") or "").removeprefix("token-of-")
            answer = cloud.answer(self.command, self.path, body, project_id)
            content = answer.content()
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.kind)
            self.send_header("Content-Length", str(len(content)))
            if isinstance(answer.document, dict) and "token" in answer.document:
                self.send_header("X-Subject-Token", f"token-of-{answer.document['token']['project']['id']}")
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815  # of the library

        def log_message(self, *_args: Any) -> None: ...

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_args: Any) -> None:
            """Whoever was killed in the middle has hung up."""

    with Server(("127.0.0.1", 0), Handler) as server:
        cloud.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield cloud
        finally:
            server.shutdown()
            thread.join()
