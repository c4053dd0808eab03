"""Cinder has done what it was asked for, and its reply is lost; what killed services have left is removed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import sqlalchemy as sa
from keystoneauth1.identity import Password
from keystoneauth1.session import Session

from stillframe.domain.errors import Unavailable
from stillframe.domain.instance import Instance
from stillframe.domain.snapshot import CopyKind
from stillframe.drivers.openstack.cloud import Cloud, Endpoints
from stillframe.drivers.wrappers import RetryPolicy, StorageUnder
from stillframe.testing.world import SIZE, SNAPSHOT, a_call, pattern
from tests.lab.openstack.fixtures import needs_lab
from tests.lab.openstack.lab import Lab
from tests.lab.openstack.tenant import checked
from tests.openstack.guest import Guest
from tests.openstack.world import CloudWorld

pytestmark = [pytest.mark.openstack, needs_lab]

PATIENTLY = RetryPolicy(attempts=3, first_wait=0.1, longest_wait=0.2)


class Losing(requests.adapters.HTTPAdapter):
    """The way to the cloud, on which the reply to the next request is lost whose path and body fit."""

    def __init__(self) -> None:
        super().__init__()
        self.lost: list[str] = []
        self._order: tuple[str, str] | None = None

    def lose(self, path: str, body: str) -> None:
        """Order the loss; both are regular expressions."""
        self._order = (path, body)

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        reply = super().send(request, *args, **kwargs)
        body = request.body.decode() if isinstance(request.body, bytes) else request.body or ""
        if self._order and request.method == "POST" and self._fits(str(request.url), body):
            assert reply.status_code < 400, reply.text
            self._order = None
            self.lost.append(str(request.url))
            raise requests.ConnectionError("the reply was lost")
        return reply

    def _fits(self, url: str, body: str) -> bool:
        assert self._order is not None
        path, words = self._order
        return re.search(path, url) is not None and re.search(words, body) is not None


@pytest.fixture
def way() -> Losing:
    return Losing()


@pytest.fixture
def cloud(lab: Lab, way: Losing) -> Cloud:
    """The cloud at the end of that way."""
    connection = requests.Session()
    connection.mount("http://", way)

    def log_in(project_id: str | None) -> Password:
        own = lab.keystone.credentials("stillframe")
        if project_id is not None:
            own = {key: own[key] for key in own if not key.startswith("project")} | {"project_id": project_id}
        return Password(**own)  # type: ignore[arg-type]

    return Cloud(Session(session=connection), log_in, Endpoints("internal", None))


@pytest.fixture
def world(lab: Lab, cloud: Cloud) -> Iterator[CloudWorld]:
    made = CloudWorld(lab, cloud)
    yield made
    lab.clear_faults()
    made.close()


def grouped(lab: Lab, world: CloudWorld) -> Instance:
    """A server with two volumes, which are a consistent group."""
    tenant = world.tenants["alpha"]
    kind, volume_type = lab.group_type_id, lab.volume_types["rawfile-group"]
    body = {"group": {"name": "g", "group_type": kind, "volume_types": [volume_type]}}
    group_id = checked(tenant.volume.post("/groups", json=body), 202)["group"]["id"]
    tenant.wait("groups", group_id, "available")
    volumes = [tenant.create_volume(kind="rawfile-group", group_id=group_id) for _ in range(2)]
    guest = Guest(lab, tenant, tenant.create_server(volumes), volumes)
    tenant.stop(guest.id)
    return world.compute.get_instance(guest.id)


@pytest.mark.parametrize("kind", list(CopyKind))
def test_a_copy_whose_reply_was_lost_is_used_and_not_made_twice(world: CloudWorld, way: Losing, kind: CopyKind) -> None:
    instance = world.add((SIZE, SIZE))
    way.lose("/snapshots$", instance.volume_ids[1])
    made = world.snapshot(instance, SNAPSHOT, kind)
    assert len(way.lost) == 1
    assert {one.id for one in world.storage.find(SNAPSHOT)} == {one.id for one in made}
    assert [one.name.volume_id for one in made] == list(instance.volume_ids)


def test_a_lost_reply_is_not_made_good_by_what_an_earlier_attempt_has_made(world: CloudWorld, way: Losing) -> None:
    instance = world.add()
    volume_id = instance.volume_ids[0]
    world.write(volume_id, 0, pattern(1))
    earlier = world.snapshot(instance, SNAPSHOT)
    world.write(volume_id, 0, pattern(2))
    way.lose("/snapshots$", volume_id)
    made = world.snapshot(instance, SNAPSHOT)
    assert len(way.lost) == 1
    assert made[0].name == earlier[0].name
    assert made[0].id != earlier[0].id
    world.write(volume_id, 0, pattern(3))
    world.storage.restore(a_call(), instance, volume_id, made[0].id)
    assert world.read(volume_id) == pattern(2)


def test_a_group_snapshot_whose_reply_was_lost_is_used_and_not_made_twice(
    lab: Lab, world: CloudWorld, way: Losing
) -> None:
    instance = grouped(lab, world)
    earlier = world.snapshot(instance, SNAPSHOT)
    way.lose("/group_snapshots$", "")
    cut = world.storage.cut(a_call(), instance, world.names(instance, SNAPSHOT))
    assert len(way.lost) == 1
    assert cut.simultaneous
    made = {one.id for one in cut.snapshots}
    assert made.isdisjoint(one.id for one in earlier)
    assert {one.id for one in world.storage.find(SNAPSHOT)} == made | {one.id for one in earlier}


@pytest.mark.parametrize("lost", ["os-reset_status.*available", "revert", "os-reset_status.*in-use"])
def test_a_restore_goes_on_where_a_reply_was_lost(lab: Lab, world: CloudWorld, way: Losing, lost: str) -> None:
    instance = world.add()
    volume_id = instance.volume_ids[0]
    world.write(volume_id, 0, pattern(1))
    made = world.snapshot(instance)[0]
    world.write(volume_id, 0, pattern(2))
    # So the revert is still under way when the loss of its reply is seen.
    lab.order_fault("revert_to_snapshot", target=volume_id, action="hang", seconds=2)
    way.lose("/action$", lost)
    StorageUnder(world.storage, PATIENTLY).restore(a_call(), instance, volume_id, made.id)
    assert len(way.lost) == 1
    assert world.read(volume_id) == pattern(1)
    assert world.storage.get_volume(volume_id).status == "in-use"
    assert [one.id for one in world.storage.find(None) if one.ready] == [made.id]


def test_a_restore_through_the_extension_goes_on_where_its_reply_was_lost(
    lab: Lab, world: CloudWorld, way: Losing
) -> None:
    lab.extend_apis(extensions=["stillframe.cinder_extension.StillframeRevert"])
    try:
        instance = world.add()
        volume_id = instance.volume_ids[0]
        world.write(volume_id, 0, pattern(1))
        made = world.snapshot(instance)[0]
        world.snapshot(instance)
        world.write(volume_id, 0, pattern(2))
        way.lose("/action$", "stillframe-revert")
        with pytest.raises(Unavailable):
            world.storage.restore(a_call(), instance, volume_id, made.id)
        world.storage.restore(a_call(), instance, volume_id, made.id)
        assert len(way.lost) == 1
        assert world.read(volume_id) == pattern(1)
        assert world.storage.get_volume(volume_id).status == "in-use"
    finally:
        lab.extend_apis()


@pytest.mark.parametrize("status", ["error_deleting", "restoring", "error"])
def test_a_copy_is_deleted_in_whatever_status_a_killed_service_has_left_it(world: CloudWorld, status: str) -> None:
    made = world.snapshot(world.add())[0]
    body = {"os-reset_status": {"status": status}}
    checked(world.tenants["alpha"].administrator.post(f"/snapshots/{made.id}/action", json=body), 202)
    world.storage.delete(a_call(), made.reference)
    assert world.storage.find(None) == []


def test_a_group_snapshot_that_has_no_members_and_never_ends_is_found_and_deleted(
    lab: Lab, world: CloudWorld, cloud: Cloud
) -> None:
    instance = grouped(lab, world)
    made = world.snapshot(instance, SNAPSHOT)
    # As a cinder-api leaves it that is killed while it makes one.
    with sa.create_engine(lab.database.url("cinder"), poolclass=sa.NullPool).begin() as database:
        members = database.exec_driver_sql(
            "UPDATE snapshots SET deleted = 1 WHERE group_snapshot_id IS NOT NULL AND NOT deleted"
        )
        groups = database.exec_driver_sql("UPDATE group_snapshots SET status = 'creating' WHERE NOT deleted")
        assert (members.rowcount, groups.rowcount) == (2, 1)
    (empty,) = world.storage.find(SNAPSHOT)
    assert (empty.ready, empty.name.operation_id) == (False, made[0].name.operation_id)
    assert empty.project_id == world.project("mine")
    storage = CloudWorld(lab, cloud, timeout=2).storage
    for _ in range(2):
        storage.delete(a_call(), empty.reference)
    assert storage.find(None) == []
    assert checked(world.tenants["alpha"].volume.get("/group_snapshots"))["group_snapshots"] == []
