"""Whatever Keystone, Nova, Cinder and Glance answer, the drivers do their work or raise an error of our tree."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import requests
from hypothesis import given
from hypothesis import strategies as st
from keystoneauth1.identity.v3 import Password
from keystoneauth1.plugin import BaseAuthPlugin
from keystoneauth1.session import Session

from stillframe.domain.errors import Interrupted
from stillframe.domain.snapshot import CopyKind, CopyName, CopyReference
from stillframe.drivers.call import Call
from stillframe.drivers.openstack import login
from stillframe.drivers.openstack.backends import Backends
from stillframe.drivers.openstack.cinder import CinderStorage
from stillframe.drivers.openstack.cloud import Cloud, Endpoints
from stillframe.drivers.openstack.nova import NovaCompute
from stillframe.drivers.openstack.pausing import Pausing
from stillframe.drivers.openstack.reverting import Reverter, Times
from stillframe.drivers.openstack.visibility import CloudVisibility
from stillframe.drivers.openstack.volumes import Looking
from stillframe.drivers.openstack.waiting import Waiting
from stillframe.foreign.keystoneauth import CloudAdapter
from stillframe.foreign.session import mount
from tests.fuzz.hostility import CASES, PLANS, Twist, Twisting, require_ours

HOST: Final = "http://cloud.test"
OWN, TENANT, USER = "0a" * 16, "0b" * 16, "0c" * 16
SERVER, VOLUME, SNAPSHOT = ("11111111-1111-1111-1111-111111111111", "22222222-" * 3 + "1", "33333333-" * 3 + "1")
OURS, OPERATION = "44444444-4444-4444-4444-444444444444", "55555555-5555-5555-5555-555555555555"
NAME: Final = CopyName(CopyKind.SNAPSHOT, OURS, VOLUME, OPERATION)
PASSWORD, TOKEN = "the-password", "the-token"
BOUND: Final = 30.0

_WHEN: Final = "2026-11-26T00:00:00.000000"
_KINDS: Final = {
    "compute": "/compute/v2.1",
    "block-storage": f"/volume/v3/{OWN}",
    "image": "/image",
    "identity": "/identity",
}
_TOKEN: Final = {
    "token": {
        "methods": ["password"],
        "user": {"id": USER, "name": "stillframe", "domain": {"id": "default", "name": "Default"}},
        "project": {"id": OWN, "name": "service", "domain": {"id": "default", "name": "Default"}},
        "roles": [{"id": "r1", "name": "admin"}, {"id": "r2", "name": "service"}],
        "expires_at": "2099-01-01T00:00:00.000000Z",
        "issued_at": "2026-01-01T00:00:00.000000Z",
        "catalog": [
            {
                "type": kind,
                "name": kind,
                "id": kind,
                "endpoints": [{"id": kind, "interface": "public", "region": "r", "region_id": "r", "url": HOST + path}],
            }
            for kind, path in _KINDS.items()
        ],
    }
}
_SERVER: Final = {
    "id": SERVER,
    "name": "vm",
    "status": "SHUTOFF",
    "tenant_id": TENANT,
    "user_id": USER,
    "created": "2026-11-26T00:00:00Z",
    "metadata": {"a": "b"},
    "locked": False,
    "locked_reason": None,
    "OS-EXT-STS:task_state": None,
    "OS-EXT-SRV-ATTR:host": "compute-0",
    "OS-EXT-SRV-ATTR:root_device_name": "/dev/vda",
    "os-extended-volumes:volumes_attached": [{"id": VOLUME, "delete_on_termination": False}],
}
_VOLUME: Final = {
    "id": VOLUME,
    "name": "root",
    "status": "in-use",
    "size": 1,
    "bootable": "true",
    "encrypted": False,
    "created_at": _WHEN,
    "metadata": {},
    "volume_type": "fast",
    "group_id": None,
    "attachments": [{"server_id": SERVER, "attachment_id": "a1", "device": "/dev/vda", "volume_id": VOLUME}],
    "os-vol-host-attr:host": "host@fast#pool",
    "os-vol-tenant-attr:tenant_id": TENANT,
}
_SNAPSHOT: Final = {
    "id": SNAPSHOT,
    "name": f"stillframe snapshot {OURS} {OPERATION}",
    "description": "a part",
    "status": "available",
    "size": 1,
    "volume_id": VOLUME,
    "created_at": _WHEN,
    "group_snapshot_id": None,
    "os-extended-snapshot-attributes:project_id": TENANT,
}
_POOL: Final = {"name": "host@fast#pool", "capabilities": {"volume_backend_name": "fast", "sparse_copy_volume": False}}
_ROLE: Final = {"role": {"id": "r1", "name": "admin"}, "scope": {"project": {"id": TENANT, "name": "alpha"}}}
_DOCUMENTS: Final[list[tuple[str, str, Any]]] = [
    ("GET", "/identity/v3/role_assignments", {"role_assignments": [_ROLE]}),
    ("GET", "/servers/detail", {"servers": [_SERVER]}),
    ("GET", "/os-volume_attachments", {"volumeAttachments": [{"volumeId": VOLUME, "device": "/dev/vda"}]}),
    ("GET", "/os-instance-actions", {"instanceActions": [{"action": "stop", "request_id": "req-1", "user_id": USER}]}),
    ("GET", f"/servers/{SERVER}", {"server": _SERVER}),
    ("GET", "/volumes/detail", {"volumes": [_VOLUME]}),
    ("GET", f"/volumes/{VOLUME}", {"volume": _VOLUME}),
    ("GET", "/volumes", {"volumes": [{"id": VOLUME}]}),
    ("GET", "/group_snapshots/detail", {"group_snapshots": []}),
    ("GET", f"/snapshots/{SNAPSHOT}", {"snapshot": _SNAPSHOT}),
    ("GET", "/os-quota-sets/", {"quota_set": {"id": TENANT, "snapshots": {"limit": 10, "in_use": 0, "reserved": 0}}}),
    ("GET", "/scheduler-stats/get_pools", {"pools": [_POOL]}),
    ("GET", "/extensions", {"extensions": [{"alias": "os-other"}]}),
    ("GET", "/v2/images", {"images": []}),
    ("POST", "/v2/images", {"id": "66666666-6666-6666-6666-666666666666", "status": "active"}),
]


class Answering(CloudAdapter, Twisting):
    """A small cloud within this process, some of whose replies are twisted."""

    def __init__(self, plan: Mapping[int, Twist]) -> None:
        super().__init__()
        self.plan, self.answer = dict(plan), self._answer
        self.snapshots = [dict(_SNAPSHOT)]

    def _answer(self, request: requests.PreparedRequest) -> tuple[int, Any, dict[str, str]]:
        parts = urlsplit(str(request.url))
        as_json = {"Content-Type": "application/json"}
        if parts.path.endswith("/auth/tokens"):
            return 201, _TOKEN, as_json | {"X-Subject-Token": TOKEN}
        if parts.path.endswith("/snapshots/detail"):
            wanted = parse_qs(parts.query).get("status", [None])[0]
            return 200, {"snapshots": [one for one in self.snapshots if wanted in (None, one["status"])]}, as_json
        if request.method == "POST" and parts.path.endswith("/snapshots"):
            asked = json.loads(request.body or b"{}")["snapshot"]
            made = _SNAPSHOT | {"id": "new", "description": asked["description"], "name": asked["name"]}
            self.snapshots.append(made)
            return 202, {"snapshot": made}, as_json
        for method, path, document in _DOCUMENTS:
            if request.method == method and path in parts.path:
                return 200, document, as_json
        if request.method == "DELETE":
            self.snapshots.clear()
        return (404, {"itemNotFound": {"message": "no"}}, as_json) if request.method == "GET" else (202, None, as_json)


class Story:
    """The drivers, and the cloud that they speak to."""

    def __init__(self, plan: Mapping[int, Twist]) -> None:
        session = Session(timeout=5)
        self.way = Answering(plan)
        mount(session.session, self.way)
        self.cloud = Cloud(session, _login, Endpoints("public", "r"))
        waiting, looking = Waiting(first=0.0, longest=0.0), Looking(self.cloud)
        times = Times(timeout=0.05, late=0.0)
        reverter = Reverter(self.cloud, looking, waiting, Backends(self.cloud, ()), times, reimage=True)
        self.storage = CinderStorage(self.cloud, looking, waiting, reverter, timeout=0.05)
        self.compute = NovaCompute(self.cloud, waiting, Pausing(self.cloud, waiting, seconds=5), pauses=False)
        self.visibility = CloudVisibility(self.cloud)
        self._checks = itertools.count()

    def call(self) -> Call:
        return Call(OPERATION, "req-1", self._check, lambda _done, _total: None, SERVER)

    def _check(self) -> None:
        if next(self._checks) > 200:
            raise Interrupted("the operation is past its deadline, as the test wished")


def _login(project_id: str | None) -> BaseAuthPlugin:
    return Password(
        auth_url=f"{HOST}/identity/v3",
        username="u",
        password=PASSWORD,
        user_domain_id="default",
        project_id=project_id or OWN,
    )


def _cut(story: Story) -> None:
    instance = story.compute.get_instance(SERVER)
    story.storage.prepare_cut(story.call(), instance, [NAME])
    story.storage.cut(story.call(), instance, [NAME])


ACTS: Final[dict[str, Callable[[Story], object]]] = {
    "servers of a user": lambda story: story.visibility.list_instances("users-token", all_projects=False),
    "a server of a user": lambda story: story.visibility.get_instance("users-token", SERVER),
    "volumes of a user": lambda story: story.visibility.list_volumes("users-token", all_projects=True),
    "ids of a user": lambda story: story.visibility.own_volumes("users-token"),
    "servers": lambda story: story.compute.list_instances(None),
    "hold": lambda story: story.compute.hold(SERVER),
    "fence": lambda story: story.compute.unfence(SERVER, OURS),
    "start": lambda story: story.compute.fenced_by(SERVER),
    "volume": lambda story: story.storage.get_volume(VOLUME),
    "check a cut": lambda story: story.storage.check_cut(story.compute.get_instance(SERVER), [VOLUME]),
    "cut": _cut,
    "complete": lambda story: story.storage.complete(story.call(), CopyReference(SNAPSHOT)),
    "find": lambda story: story.storage.find(None),
    "check a restore": lambda story: story.storage.check_restore(
        story.compute.get_instance(SERVER), {VOLUME: SNAPSHOT}
    ),
    "release": lambda story: story.storage.release(story.call(), VOLUME),
    "login": lambda story: list(login.problems(story.cloud, ["compute", "block-storage", "image"])),
}
# These change what the small cloud does not follow, so that they do not come to the end that was wished.
UNFOLLOWED: Final[dict[str, Callable[[Story], object]]] = {
    "take a fence": lambda story: story.compute.fence(SERVER, OURS),
    "restore": lambda story: story.storage.restore(story.call(), story.compute.get_instance(SERVER), VOLUME, SNAPSHOT),
    "delete": lambda story: story.storage.delete(story.call(), CopyReference(SNAPSHOT)),
}


@given(act=st.sampled_from(sorted(ACTS | UNFOLLOWED)), plan=PLANS)
@CASES
def test_any_replies_lead_to_an_end_that_is_ours(act: str, plan: dict[int, Twist]) -> None:
    story = Story(plan)
    require_ours(lambda: (ACTS | UNFOLLOWED)[act](story), BOUND, PASSWORD, TOKEN, "users-token")


def test_right_replies_lead_to_the_end_that_was_wished() -> None:
    for act in ACTS.values():
        story = Story({})
        act(story)
        assert story.way.count > 1
