"""Whether the service gets into the cloud is found out, and said, before anybody asks for anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from keystoneauth1.adapter import Adapter

from stillframe.drivers.openstack.login import problems
from tests.cli.program import Place
from tests.lab.openstack.fixtures import needs_lab
from tests.lab.openstack.lab import Lab
from tests.lab.openstack.services import HOST, Option, free_port, until
from tests.lab.openstack.tenant import checked
from tests.openstack.service import Stillframe, serving
from tests.openstack.world import USER, connected

pytestmark = [pytest.mark.openstack, needs_lab]

KINDS = ("compute", "block-storage", "image")


def found(lab: Lab, folder: Path, **options: Option) -> list[str]:
    return [problem.what for problem in problems(connected(lab, folder, **options), KINDS)]


@contextmanager
def administrator(lab: Lab, project: str) -> Iterator[None]:
    """The service's user is an administrator in a tenant's project."""
    api = Adapter(lab.keystone.session("admin"), endpoint_override=lab.keystone.auth_url, raise_exc=True)
    ((user_id,), (role_id,)) = (
        [one["id"] for one in checked(api.get(f"/{kind}?name={name}"))[kind]]
        for kind, name in (("users", USER), ("roles", "admin"))
    )
    path = f"/projects/{lab.projects[project]}/users/{user_id}/roles/{role_id}"
    api.put(path)
    try:
        yield
    finally:
        api.delete(path)
        # Its tokens are revoked with that.
        lab.keystone.forget(USER)


def test_the_user_that_the_documentation_describes_has_no_problems(lab: Lab, tmp_path: Path) -> None:
    assert found(lab, tmp_path) == []


def test_a_wrong_password_is_said(lab: Lab, tmp_path: Path) -> None:
    (what,) = found(lab, tmp_path, password="wrong")
    assert "cannot log in" in what


def test_a_keystone_that_does_not_answer_is_said(lab: Lab, tmp_path: Path) -> None:
    (what,) = found(lab, tmp_path, auth_url=f"http://{HOST}:{free_port()}/v3")
    assert "cannot be reached" in what


def test_roles_that_are_missing_are_named(lab: Lab, tmp_path: Path) -> None:
    what = found(lab, tmp_path, username="alpha-member", project_name="alpha")
    assert ["'admin'" in what[0], "'service'" in what[1]] == [True, True]


def test_a_user_who_is_an_administrator_in_a_tenant_s_project_is_warned_of(lab: Lab, tmp_path: Path) -> None:
    with administrator(lab, "beta"):
        (what,) = found(lab, tmp_path)
    assert "projects beta:" in what


def test_the_log_says_at_the_start_what_is_wrong(lab: Lab, tmp_path: Path) -> None:
    with serving(lab, tmp_path, cloud={"password": "wrong"}) as service:
        until(lambda: "cannot log in" in service.log(), 30)
        assert "wrong" not in service.log().replace("went wrong", "")


def test_the_doctor_says_it_too(lab: Lab, tmp_path: Path) -> None:
    for password, result in ((None, "ok"), ("wrong", "fail")):
        folder = tmp_path / result
        folder.mkdir()
        own = Stillframe(lab, folder, cloud={"password": password} if password else {})
        done = Place(folder).run("doctor", "-f", "json", STILLFRAME_CONFIG=str(own.config))
        assert [one["result"] for one in done.document if one["check"] == "login"] == [result], done
