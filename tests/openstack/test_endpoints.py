"""The same at the cloud's own endpoints, with the filters in Nova and Cinder and the extension in Cinder's API."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.openstack.filters import Filter
from tests.lab.openstack.fixtures import needs_lab
from tests.lab.openstack.lab import Lab
from tests.lab.openstack.tenant import Tenant, checked
from tests.openstack.guest import Guest, on_each_back_end
from tests.openstack.service import Stillframe, User, cloud_user, holdings

pytestmark = [pytest.mark.openstack, needs_lab]


@pytest.fixture(scope="module")
def extended(lab: Lab, service: Stillframe) -> Iterator[Stillframe]:
    """The service, with its filters and its extension in the cloud; it looks anew for the extension."""
    options = {"endpoint": service.url}
    service.stop()
    lab.extend_apis(
        Filter("stillframe.filters:nova", options),
        Filter("stillframe.filters:cinder", options),
        ["stillframe.cinder_extension.StillframeRevert"],
    )
    service.start()
    yield service
    service.stop()
    lab.extend_apis()
    service.start()


@pytest.fixture
def user(lab: Lab, extended: Stillframe) -> User:
    assert extended.url
    return cloud_user(lab, "alpha-member")


@on_each_back_end
def test_a_server_goes_back_to_any_of_its_snapshots_through_nova_and_cinder(
    lab: Lab, tenant: Tenant, guest: Guest, user: User
) -> None:
    before, attached = holdings(lab, tenant), guest.attachments()
    taken = {}
    for text in ("A", "B", "C"):
        guest.write(text)
        taken[text] = user.create(guest.id)["id"]
    shown = checked(user.snapshots("PUT", f"/{taken['A']}", {"instance-snapshot": {"name": "renamed"}}), 200)
    assert shown == {"instance_snapshot": {"id": taken["A"]}}
    assert [one["name"] for one in checked(user.snapshots(path=f"?instance_id={guest.id}"))["instance_snapshots"]] == [
        "story",
        "story",
        "renamed",
    ]
    guest.write("now")
    for text in ("A", "C", "B"):
        shown = user.restore(guest.id, taken[text])
        assert shown["status"] == "available"
        assert user.progress(shown["task_uri"])["plan"] == dict.fromkeys(guest.volumes, "extension")
        assert guest.read() == [text] * 3
        assert guest.is_whole()
        assert guest.attachments() == attached
    check = user.ask(
        "POST",
        f"{lab.cinder.api.url}/v3/{user.project_id}/volumes/{guest.volumes[0]}/action",
        {"copy-progress": {"details": False}},
    )
    assert (check.status_code, "Storage Virtualize" in check.text) == (400, True)
    for text in ("C", "A", "B"):
        user.delete(taken[text])
    assert holdings(lab, tenant) == before


@on_each_back_end
def test_a_restore_that_failed_through_nova_is_retried_and_one_is_rolled_back(
    lab: Lab, tenant: Tenant, guest: Guest, user: User
) -> None:
    before = holdings(lab, tenant)
    guest.write("then")
    made = user.create(guest.id)
    snapshot_id = made["id"]
    for arguments, expected in (({"retry": True}, "then"), ({"rollback": True}, "now")):
        guest.write("now")
        with guest.failing_once(1, made):
            shown = user.restore(guest.id, snapshot_id)
        assert (shown["status"], set(shown["failed_snapshots"])) == ("restore-error", {guest.volumes[1]})
        assert user.restore(guest.id, snapshot_id, **arguments)["status"] == "available"
        assert guest.read() == [expected] * 3
        assert guest.is_whole()
    user.delete(snapshot_id)
    assert holdings(lab, tenant) == before


def test_strangers_are_refused_at_the_cloud_s_endpoints_too(lab: Lab, guest: Guest, user: User) -> None:
    snapshot_id = user.create(guest.id)["id"]
    stranger, reader = cloud_user(lab, "beta-member"), cloud_user(lab, "alpha-reader")
    for request in (
        {"vm-snapshot": {"name": "mine"}},
        {"vm-restore": {"instance_snapshot_id": snapshot_id, "force": True}},
    ):
        assert stranger.act(guest.id, request).status_code == 404
        assert reader.act(guest.id, request).status_code == 403
    assert stranger.snapshots(path=f"/{snapshot_id}").status_code == 404
    user.delete(snapshot_id)


def test_the_cloud_goes_on_and_says_so_while_the_service_is_down(
    tenant: Tenant, guest: Guest, user: User, extended: Stillframe
) -> None:
    extended.kill()
    try:
        assert user.act(guest.id, {"vm-snapshot": {"name": "no"}}).status_code == 503
        assert user.snapshots().status_code == 503
        tenant.stop(guest.id)
        tenant.start(guest.id)
        assert tenant.create_snapshot(guest.volumes[0])
    finally:
        extended.start()
