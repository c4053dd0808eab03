"""Who may do what, without Keystone: users of an htpasswd file, and anybody on a loopback address."""

from __future__ import annotations

from typing import TYPE_CHECKING

import bcrypt
import pytest

from stillframe import main, settings
from stillframe.api.auth.strategies import require_safe_binding
from stillframe.domain.errors import InvalidInput
from tests.api.running import Override, Running, running

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

LIST = "/volume/v3/{project}/instance-snapshots"
GRANTS = ["rita:blue:reader", "mia:blue:member", "mia:green:reader", "ada:red:admin"]


def hashed(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


@pytest.fixture(scope="module")
def basic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("basic")
    file = folder / "htpasswd"
    file.write_text("".join(f"{user}:{hashed('pw-' + user)}\n" for user in ("rita", "mia", "ada", "nora", "zoë")))
    overrides: Sequence[Override] = [
        (None, "auth_strategy", "http_basic"),
        ("http_basic", "user_file", str(file)),
        ("http_basic", "grants", [*GRANTS, "zoë:blue:reader"]),
    ]
    with running(folder, *overrides) as api:
        yield api


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Basic",
        "Basic !!!",
        "Basic bWlh",
        "Bearer abc",
        "Basic bWlhOndyb25n",
        "Basic bm9ib2R5OnB3",
        "Basic Og==",
    ],
)
def test_a_request_without_good_credentials_is_challenged(basic: Running, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    reply = basic.call("GET", LIST.format(project="blue"), headers=headers)
    assert reply.status_code == 401
    assert reply.json()["unauthorized"]["code"] == 401
    assert reply.headers["WWW-Authenticate"].startswith('Basic realm="stillframe"')


@pytest.mark.parametrize("password", ["wrong", "", "x" * 100, "nul\0nul"])
def test_a_wrong_password_is_refused(basic: Running, password: str) -> None:
    assert basic.call("GET", LIST.format(project="blue"), auth=("mia", password)).status_code == 401


def test_roles_bring_the_lower_ones_along(basic: Running) -> None:
    instance = basic.instance("blue")
    body = {"vm-snapshot": {"name": "one"}}
    rita, mia, ada = (("rita", "pw-rita"), ("mia", "pw-mia"), ("ada", "pw-ada"))
    refused = basic.act(instance, body, auth=rita)
    assert (refused.status_code, [*refused.json()]) == (403, ["forbidden"])
    accepted = basic.act(instance, body, auth=mia)
    assert accepted.status_code == 200
    basic.wait(accepted.json()["instance_snapshot"]["task_uri"], auth=mia)
    listed = basic.call("GET", LIST.format(project="blue"), auth=rita).json()["instance_snapshots"]
    assert [one["user_id"] for one in listed] == ["mia"]
    assert basic.call("GET", listed[0]["task_uri"], auth=rita).status_code == 200
    shown = basic.call("GET", f"{LIST.format(project='red')}/{listed[0]['id']}", auth=ada)
    assert shown.status_code == 200


def test_the_path_chooses_among_the_projects_of_a_user(basic: Running) -> None:
    mia = ("mia", "pw-mia")
    assert basic.call("GET", LIST.format(project="blue"), auth=mia).status_code == 200
    assert basic.call("GET", LIST.format(project="green"), auth=mia).status_code == 200
    instance = basic.instance("green")
    assert basic.act(instance, {"vm-snapshot": {"name": "one"}}, auth=mia).status_code == 403
    reply = basic.call("GET", LIST.format(project="red"), auth=mia)
    assert reply.status_code == 400
    assert reply.json()["badRequest"]["message"].startswith("Malformed request URL: URL's project_id 'red'")


def test_a_path_without_a_project_means_the_first_granted_one(basic: Running) -> None:
    instance = basic.instance("blue")
    servers = basic.call("GET", "/compute/v2.1/servers", auth=("mia", "pw-mia")).json()["servers"]
    assert instance.id in [server["id"] for server in servers]


def test_a_user_without_grants_may_do_nothing(basic: Running) -> None:
    assert basic.call("GET", LIST.format(project="blue"), auth=("nora", "pw-nora")).status_code == 403


def test_names_are_not_confined_to_ascii(basic: Running) -> None:
    reply = basic.call("GET", LIST.format(project="blue"), auth=("zoë".encode(), "pw-zoë".encode()))
    assert reply.status_code == 200


def test_the_documents_and_the_metrics_need_no_credentials(basic: Running) -> None:
    for path in ("/compute/v2.1/", "/volume", "/openapi.json", "/metrics", "/healthcheck"):
        assert basic.call("GET", path).status_code == 200 if path != "/volume" else 300


def test_an_error_behind_the_authentication_is_not_taken_for_one_of_it(basic: Running) -> None:
    instance = basic.instance("blue")
    reply = basic.act(instance, {"vm-snapshot": {}}, auth=("mia", "pw-mia"))
    assert reply.status_code == 400


@pytest.mark.parametrize(
    ("option", "value", "culprit"),
    [
        ("grants", ["mia"], "http_basic.grants"),
        ("grants", ["mia:blue:king"], "http_basic.grants"),
        ("grants", [":blue:reader"], "http_basic.grants"),
        ("user_file", "/nowhere", "http_basic.user_file"),
    ],
)
def test_settings_that_cannot_work_stop_the_service_from_starting(
    basic: Running, tmp_path: Path, option: str, value: object, culprit: str
) -> None:
    user_file = basic.service.settings.api.basic_user_file
    overrides: list[Override] = [
        (None, "state_dir", str(tmp_path)),
        (None, "auth_strategy", "http_basic"),
        ("http_basic", "user_file", user_file),
        ("http_basic", option, value),
    ]
    with pytest.raises(InvalidInput) as caught:
        main.build(settings.load((), overrides))
    assert caught.value.path == culprit


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_trusting_everybody_is_possible_on_loopback_addresses(host: str) -> None:
    require_safe_binding(settings.load((), [(None, "auth_strategy", "noauth"), (None, "bind_host", host)]))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", "localhost.example.org"])  # noqa: S104
def test_trusting_everybody_is_refused_elsewhere(host: str) -> None:
    with pytest.raises(InvalidInput, match="noauth"):
        require_safe_binding(settings.load((), [(None, "auth_strategy", "noauth"), (None, "bind_host", host)]))
    for strategy in ("token", "http_basic", "keystone"):
        require_safe_binding(settings.load((), [(None, "bind_host", host), (None, "auth_strategy", strategy)]))


def test_a_token_says_who_somebody_is_where_everybody_is_trusted(api: Running) -> None:
    instance = api.instance()
    reply = api.act(instance, {"vm-snapshot": {"name": "one"}}, headers={"X-Auth-Token": "jane:elsewhere"})
    assert reply.status_code == 200
    snapshot_id = reply.json()["instance_snapshot"]["id"]
    api.wait(reply.json()["instance_snapshot"]["task_uri"])
    assert api.show(instance, snapshot_id)["user_id"] == "jane"


def test_web_pages_cannot_use_a_service_that_trusts_everybody(api: Running) -> None:
    instance = api.instance()
    before = api.everything()
    page = {"Origin": "https://evil.example.org"}
    reply = api.act(instance, {"vm-snapshot": {"name": "one"}}, headers=page)
    assert reply.status_code == 403
    assert api.everything() == before
