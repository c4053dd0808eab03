"""How long a token is good for, where Keystone's clock is not ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stillframe.drivers.openstack.cloud import Cloud, Endpoints, connect
from stillframe.settings import load
from tests.lab.openstack.services import ini
from tests.lab.scripted.cloud import ScriptedCloud, scripted_cloud


@pytest.fixture
def scripted() -> Iterator[ScriptedCloud]:
    with scripted_cloud() as cloud:
        yield cloud


@pytest.fixture
def cloud(scripted: ScriptedCloud, tmp_path: Path) -> Cloud:
    login = {"auth_type": "v3password", "auth_url": f"{scripted.url}/identity/v3", "username": "u", "password": "p"}
    scope = {"user_domain_id": "default", "project_name": "service", "project_domain_id": "default"}
    config = tmp_path / "cloud.conf"
    config.write_text(ini({"openstack": {**login, **scope}}))
    return connect(load([str(config)]).conf, Endpoints("internal", None))


def logins(scripted: ScriptedCloud) -> int:
    return len(scripted.asked("POST /identity/v3/auth/tokens"))


def test_who_needs_a_token_for_long_gets_one_whose_age_is_known(cloud: Cloud, scripted: ScriptedCloud) -> None:
    # It may be from long ago, whatever the date in it says.
    cloud.project_id()
    assert logins(scripted) == 1
    cloud.credentials("compute", 700)
    assert logins(scripted) == 2
    cloud.credentials("compute", 700)
    assert logins(scripted) == 2


def test_a_token_that_is_not_good_for_so_long_is_renewed(cloud: Cloud, scripted: ScriptedCloud) -> None:
    scripted.token_dates = "2098-12-31T23:00:00.000000Z", "2099-01-01T00:00:00.000000Z"
    cloud.credentials("compute", 700)
    asked = logins(scripted)
    cloud.credentials("compute", 3500)
    assert logins(scripted) == asked
    cloud.credentials("compute", 3700)
    assert logins(scripted) == asked + 1
