"""Lists: pages, orders, filters, and what they refuse."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from tests.api.running import running

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from stillframe.domain.instance import Instance
    from tests.api.running import Running

NAMES = ["b", "a", "c", "a", "b"]


@pytest.fixture(scope="module")
def listed(api: Running) -> tuple[Instance, list[str]]:
    """An instance and the ids of its five snapshots, in the order they were taken, with names that repeat."""
    instance = api.instance()
    return instance, [api.snapshot(instance, name) for name in NAMES]


def ask(api: Running, instance: Instance, **query: Any) -> dict[str, Any]:
    reply = api.call("GET", f"/volume/v3/{instance.project_id}/instance-snapshots", params=query)
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def ids(page: Mapping[str, Any]) -> list[str]:
    return [one["id"] for one in page["instance_snapshots"]]


def test_the_newest_come_first_and_a_whole_list_has_no_links(api: Running, listed: tuple[Instance, list[str]]) -> None:
    instance, taken = listed
    page = ask(api, instance)
    assert ids(page) == taken[::-1]
    assert page.keys() == {"instance_snapshots"}


@pytest.mark.parametrize(
    "sort", ["name", "name:asc,created_at:desc", "created_at:asc", "updated_at", "id:asc", "status"]
)
@pytest.mark.parametrize("limit", [1, 2, 4, 5])
def test_a_walk_over_pages_sees_everything_once(
    api: Running, listed: tuple[Instance, list[str]], sort: str, limit: int
) -> None:
    instance, taken = listed
    seen: list[str] = []
    pages = 1
    page = ask(api, instance, sort=sort, limit=limit)
    while True:
        assert len(page["instance_snapshots"]) <= limit
        seen += ids(page)
        links = page.get("instance_snapshots_links")
        if links is None:
            break
        (link,) = links
        assert link["rel"] == "next"
        page = api.call("GET", link["href"]).json()
        pages += 1
    # A full last page has no link to an empty one.
    assert pages == math.ceil(len(taken) / limit)
    assert sorted(seen) == sorted(taken)
    assert seen == ids(ask(api, instance, sort=sort))


@pytest.mark.parametrize("sort", ["created_at", "name:asc", "updated_at", "id", "status:asc,created_at:asc"])
def test_a_page_goes_on_from_an_item_that_was_deleted_meanwhile(api: Running, sort: str) -> None:
    instance = api.instance()
    for name in ("b", "a", "c", "a"):
        api.snapshot(instance, name)
    whole = ids(ask(api, instance, sort=sort))
    page = ask(api, instance, sort=sort, limit=2)
    assert ids(page) == whole[:2]
    reply = api.call("DELETE", f"/v3/{instance.project_id}/instance-snapshots/{whole[1]}")
    api.wait(reply.json()["task_uri"])
    if "status" not in sort and "updated" not in sort:
        # Those two change with the deletion, and the place in the list with them.
        assert ids(api.call("GET", page["instance_snapshots_links"][0]["href"]).json()) == whole[2:]
    assert api.call("GET", page["instance_snapshots_links"][0]["href"]).status_code == 200
    # It is nobody else's business that it was there.
    other = api.call("GET", "/v3/elsewhere/instance-snapshots", params={"marker": whole[1], "sort": sort})
    unknown = api.call("GET", "/v3/elsewhere/instance-snapshots", params={"marker": "nothing", "sort": sort})
    assert (other.status_code, other.text.replace(whole[1], "nothing")) == (400, unknown.text)


def test_lists_are_sorted_by_several_keys(api: Running, listed: tuple[Instance, list[str]]) -> None:
    instance, (b1, a1, c1, a2, b2) = listed
    assert ids(ask(api, instance, sort="name:asc,created_at:desc")) == [a2, a1, b2, b1, c1]
    assert ids(ask(api, instance, sort="name,created_at:asc")) == [c1, b1, b2, a1, a2]
    assert ids(ask(api, instance, sort_key="created_at", sort_dir="asc")) == [b1, a1, c1, a2, b2]
    assert ids(ask(api, instance, sort_dir="asc")) == [b1, a1, c1, a2, b2]


def test_lists_are_filtered(api: Running, listed: tuple[Instance, list[str]]) -> None:
    instance, (_b1, a1, _c1, a2, _b2) = listed
    assert ids(ask(api, instance, name="a")) == [a2, a1]
    assert len(ids(ask(api, instance, status="available"))) == 5
    assert ids(ask(api, instance, status="error")) == []
    assert len(ids(ask(api, instance, instance_id=instance.id))) == 5
    assert ids(ask(api, instance, instance_id="another")) == []
    page = ask(api, instance, name="a", limit=1)
    assert ids(api.call("GET", page["instance_snapshots_links"][0]["href"]).json()) == [a1]


def test_a_limit_of_zero_is_an_empty_page(api: Running, listed: tuple[Instance, list[str]]) -> None:
    assert ask(api, listed[0], limit=0) == {"instance_snapshots": []}


def test_no_page_is_longer_than_the_configured_limit(tmp_path: Path) -> None:
    with running(tmp_path, (None, "max_limit", 2)) as api:
        instance = api.instance()
        taken = [api.snapshot(instance) for _ in range(3)]
        for query in ({}, {"limit": 100}):
            page = ask(api, instance, **query)
            assert ids(page) == taken[:0:-1]
            assert ids(api.call("GET", page["instance_snapshots_links"][0]["href"]).json()) == taken[:1]


def test_other_projects_are_seen_only_by_administrators_who_ask(
    api: Running, listed: tuple[Instance, list[str]]
) -> None:
    instance, taken = listed
    path = "/volume/v3/elsewhere/instance-snapshots"
    assert api.call("GET", path).json() == {"instance_snapshots": []}
    assert api.call("GET", path, params={"all_tenants": "1"}).status_code == 403
    admin = {"X-Auth-Token": "admin:elsewhere"}
    assert api.call("GET", path, headers=admin).json() == {"instance_snapshots": []}
    everything = api.call("GET", path, params={"all_tenants": "True"}, headers=admin).json()
    assert set(taken) <= set(ids(everything))
    assert {one["project_id"] for one in everything["instance_snapshots"]} >= {instance.project_id}
    shown = next(one for one in everything["instance_snapshots"] if one["id"] == taken[0])
    assert api.call("GET", shown["task_uri"], headers=admin).status_code == 200


@pytest.mark.parametrize(
    ("query", "culprit"),
    [
        ("color=red", "color"),
        ("limit=-1", "limit"),
        ("limit=ten", "limit"),
        ("limit=", "limit"),
        ("limit=1&limit=2", "limit"),
        ("limit=99999999999999999999", "limit"),
        ("marker=nothing", "marker"),
        ("marker=%00", "marker"),
        ("sort=color", "sort"),
        ("sort=name:up", "sort"),
        ("sort=", "sort"),
        ("sort=name,", "sort"),
        ("sort=name,name:asc", "sort"),
        ("sort=name&sort_key=name", "sort"),
        ("sort_key=color", "sort_key"),
        ("sort_dir=up", "sort_dir"),
        ("status=nice", "status"),
        ("status=gone", "status"),
        ("name=", "name"),
        ("name=%00", "name"),
        ("all_tenants=perhaps", "all_tenants"),
    ],
)
def test_a_bad_query_is_refused_by_name(api: Running, query: str, culprit: str) -> None:
    reply = api.call("GET", f"/volume/v3/project/instance-snapshots?{query}")
    assert reply.status_code == 400
    assert reply.json()["badRequest"]["message"].startswith(f"{culprit}: ")
