"""Clouds as clouds.yaml, secure.yaml and profiles describe them, read by openstacksdk and asked where they are."""

from __future__ import annotations

import json
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab.scripted.cloud import Answer, ScriptedCloud, scripted_cloud

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli.program import Done, Place

SECRET = "s3cret-of-mia"
LIST = ("snapshot", "list", "-f", "value", "-c", "name")


@pytest.fixture
def cloud() -> Iterator[ScriptedCloud]:
    """A Keystone with the service in two regions."""
    with scripted_cloud() as made:
        made.endpoints += [("instance-snapshot", region, f"/in-{region}") for region in ("one", "two")]
        for region in ("one", "two"):
            found = Answer(200, {"instance_snapshots": [{"name": f"of-{region}"}]})
            made.on(f"GET /in-{region}/", partial(copy, found), times=100)
        yield made


def write(place: Place, **files: Any) -> dict[str, str]:
    """Write files into the folder that openstacksdk looks in; the variables by which it finds it."""
    folder = place.folder / "config" / "openstack"
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        # JSON is YAML.
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / f"{name.replace('_', '-')}.yaml").write_text(text)
    return {"XDG_CONFIG_HOME": str(folder.parent), "OS_USERNAME": "", "STILLFRAME_ENDPOINT": "", "OS_CLOUD": "demo"}


def mia(cloud: ScriptedCloud, **more: Any) -> dict[str, Any]:
    auth = {"auth_url": f"{cloud.url}/identity/v3", "username": "mia", "project_name": "blue"}
    domains = {"user_domain_id": "default", "project_domain_id": "default"}
    return {"auth_type": "v3password", "auth": {**auth, **domains}, **more}


def require_silent(done: Done) -> None:
    assert SECRET not in done.out + done.err, done
    assert "unexpected" not in done.err, done


def logins(cloud: ScriptedCloud) -> list[str]:
    return cloud.asked("POST /identity/v3/auth/tokens")


def test_a_profile_a_password_of_secure_yaml_and_a_region_lead_to_the_service_there(
    place: Place, cloud: ScriptedCloud
) -> None:
    variables = write(
        place,
        clouds={"clouds": {"demo": {"profile": "ours", "auth": {"username": "mia", "project_name": "blue"}}}},
        secure={"clouds": {"demo": {"auth": {"password": SECRET}}}},
        clouds_public={"public-clouds": {"ours": {**mia(cloud), "regions": ["one", "two"]}}},
    )
    # As with every client of OpenStack, the first region is meant where none is said.
    for region, expected in (("", "of-one"), ("two", "of-two")):
        done = place.run("--debug", "-vv", *LIST, **variables, OS_REGION_NAME=region)
        assert (done.code, done.out) == (0, f"{expected}\n"), done
        require_silent(done)
        assert SECRET in logins(cloud)[-1]
    asked = len(cloud.heard)
    refused = place.run(*LIST, **variables, OS_REGION_NAME="three")
    assert (refused.code, refused.out, len(cloud.heard)) == (2, "", asked)
    assert "three" in refused.err
    assert "one,two" in refused.err
    require_silent(refused)


def test_what_a_region_says_takes_the_place_of_what_its_cloud_says(place: Place, cloud: ScriptedCloud) -> None:
    values = {"auth": {"project_name": "green", "password": SECRET}}
    regions = ["one", {"name": "two", "values": values}]
    variables = write(place, clouds={"clouds": {"demo": mia(cloud, regions=regions)}})
    done = place.run(*LIST, **variables, OS_REGION_NAME="two")
    assert (done.code, done.out) == (0, "of-two\n"), done
    assert '"green"' in logins(cloud)[-1]
    assert cloud.asked("GET /in-two/volume/v3/green/")
    regions[1] = {"name": "two", "values": values, "typo": 1}
    refused = place.run(*LIST, **write(place, clouds={"clouds": {"demo": mia(cloud, regions=regions)}}))
    assert (refused.code, "demo" in refused.err) == (2, True)
    require_silent(refused)


@pytest.mark.parametrize("password", [f"*{SECRET}", f"!{SECRET} x", f"[{SECRET}", f"{SECRET}\0"])
def test_a_file_that_is_no_yaml_is_refused_and_no_other_is_taken_in_its_place(
    place: Place, cloud: ScriptedCloud, password: str
) -> None:
    variables = write(place, clouds={"clouds": {"demo": mia(cloud, password="of another")}})
    nearer = place.folder / "nearer.yaml"
    nearer.write_text(f"clouds:\n  demo:\n    password: {password}\n")
    for variable in ("OS_CLIENT_CONFIG_FILE", "OS_CLIENT_SECURE_FILE"):
        done = place.run(*LIST, **variables, **{variable: str(nearer)})
        assert (done.code, done.out, cloud.heard) == (2, "", []), done
        assert str(nearer) in done.err
        require_silent(done)
