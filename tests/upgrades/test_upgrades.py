"""A release is replaced by this one, process by process, with operations open in every state."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.releases import BEFORE, FIRST, ONE_LOCAL, THIS, Release, release
from tests.storm.ledger import overtaken
from tests.storm.plan import Step
from tests.storm.storm import left_over
from tests.upgrades.stage import HELD, METHODS, Stage, stage

pytestmark = pytest.mark.crash


@pytest.fixture
def before(request: pytest.FixtureRequest, tmp_path: Path) -> Release:
    return release(request.param, tmp_path / "releases")


def goes_on(on: Stage, old: Release) -> None:
    """The worker of the release before ends what it has, then in order."""
    on.let_go()
    on.until(lambda: all(on.playing[name].done() for name in HELD), "what was held")
    end(on, old)


def end(on: Stage, old: Release) -> None:
    """The workers of the release before hand over what they have."""
    for post in on.workers(old):
        on.dismiss(post, signal.SIGTERM)
    if any((on.crew.marks / f"hold-{method}").exists() for method in METHODS):
        on.let_go()
    on.until(lambda: not any(post.pid for post in on.workers(old)), "the workers to end")


def are_killed(on: Stage, old: Release) -> None:
    for post in on.workers(old):
        on.dismiss(post, signal.SIGKILL)
    on.leases(1)
    on.let_go()


def sleep_for_long(on: Stage, old: Release) -> None:
    """The worker is suspended for longer than a claim holds, and wakes up."""
    for post in on.workers(old):
        on.crew.send(post, signal.SIGSTOP)
    on.leases(3)
    on.let_go()
    on.leases(3)
    for post in on.workers(old):
        on.crew.send(post, signal.SIGCONT)
    on.until(lambda: all(on.playing[name].done() for name in HELD), "what was held")
    # Told to end before it has woken up, the release before could miss it.
    on.until(lambda: not on.held(*METHODS), "the calls of those that woke up")
    end(on, old)


# Each way, on one database or the other; the plain one on both.
WAYS = [
    ("postgresql", FIRST, goes_on),
    ("mariadb", FIRST, goes_on),
    ("mariadb", FIRST, end),
    ("postgresql", FIRST, are_killed),
    ("mariadb", FIRST, sleep_for_long),
    ("mariadb", ONE_LOCAL, goes_on),
    ("postgresql", BEFORE, end),
    ("mariadb", BEFORE, are_killed),
    ("postgresql", BEFORE, sleep_for_long),
]


@pytest.mark.parametrize(("database", "before", "how"), WAYS, indirect=["before"])
def test_workers_are_replaced_one_by_one(
    database: str, before: Release, how: Callable[[Stage, Release], None], tmp_path: Path
) -> None:
    with stage(before, database, tmp_path) as on:
        on.open_everything()
        held = on.held(*METHODS)
        assert len(held) == len(HELD)
        if before.claims:
            # It has a janitor, which goes on beside this release's job.
            on.goes_round()
        on.crew.upgrade(THIS)
        (old,) = on.workers(before)
        on.enlist(THIS)
        if before.claims:
            # Beside the first release nobody of this one does anything yet.
            on.goes_round()
        on.leases(3)
        stolen = [entry for entry in on.entries() if entry.operation in held and entry.worker != old.name]
        assert stolen == []
        how(on, before)
        assert whatever_is_wrong(on) == []


@pytest.mark.parametrize("before", [FIRST, BEFORE], indirect=True)
def test_a_file_is_handed_on(before: Release, tmp_path: Path) -> None:
    with stage(before, "sqlite", tmp_path) as on:
        on.open_everything()
        are_killed(on, before)
        on.enlist(THIS)
        assert whatever_is_wrong(on) == []


def whatever_is_wrong(on: Stage) -> list[str]:
    """Once all has come to its end; what was made before the change is of use after it."""
    wrong = on.all_end()
    on.leave(THIS)
    on.goes_round()
    for name, step in {"failed": Step("retry", "s"), "restoring": Step("restore", "s")}.items():
        on.begin(name, step)
    wrong += on.all_end()
    wrong += on.crew.troubles + left_over(on.crew, [player.model for player in on.players.values()])
    return wrong + [f"began under an old claim: {entry}" for entry in overtaken(on.entries())]
