"""A storm: many operations by several workers, while everything that can go wrong does."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from stillframe.engine import etcd_board, redis_board
from stillframe.engine.persistence import FlowBooks
from stillframe.store.database import connect
from stillframe.store.tables import FENCES, INSTANCE_LOCKS, OPERATIONS
from tests.databases import database_server
from tests.lab.boards import board_server, options_of
from tests.property.model import Model
from tests.releases import THIS, Release
from tests.storm.client import Client, Failed
from tests.storm.crew import Crew, Overrides
from tests.storm.guests import WELL, Watch, guests, moods
from tests.storm.ledger import Ledger, overtaken
from tests.storm.plan import DISKS, Step, apply, blows, first_content, steps
from tests.storm.world import Machine, disks_of, machines, names

# What a server has acknowledged has to outlive its kill, though not a loss of power.
_DURABLE: Final = {"postgresql": ("--synchronous-commit=on",), "mariadb": ("--innodb-flush-log-at-trx-commit=2",)}
_PATIENCE: Final = 120.0
# Bytes of the ledger between two blows, some calls: on a machine that is busy otherwise nothing would ever be done. A
# lull has an end, for there may be nobody left to do anything.
_BETWEEN_BLOWS: Final = 800
_LULL: Final = 10.0


@dataclass(frozen=True, slots=True)
class Weather:
    """What kind of storm it is."""

    seed: int
    board: str
    database: str
    operations: int
    instances: int
    projects: int = 4
    #: How many of the instances run, with guests that do not always do what they are asked for.
    guests: int = 0
    #: Seconds that a guest may hang, now and then.
    longest_hang: float = 40.0
    workers: int = 4
    apis: int = 2
    claim_seconds: float = 3.0
    # Of the pauses between what goes wrong.
    pauses: float = 1.0


@dataclass
class Report:
    """How a storm went; `wrong` is everything that should not have been."""

    weather: Weather
    seconds: float = 0.0
    requests: int = 0
    repeated: int = 0
    calls: int = 0
    claims: int = 0
    taken_over: int = 0
    #: How guests were when a snapshot of theirs was asked for, and what came of it.
    moods: dict[str, int] = field(default_factory=dict)
    longest_hold: float = 0.0
    blows: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        weather = self.weather
        asked = f"{self.requests} operations on {weather.instances} instances in {self.seconds:.0f} s"
        done = f"{self.claims} claims, {self.taken_over} of them take-overs, {self.calls} calls to the platform"
        lines = [
            f"seed {weather.seed}, board {weather.board}, database {weather.database}: {asked}",
            f"{done}, {self.repeated} requests repeated",
            "blows: " + ", ".join(f"{count} x {what}" for what, count in sorted(self.blows.items())),
        ]
        if self.moods:
            lines.append("guests: " + ", ".join(f"{count} x {what}" for what, count in sorted(self.moods.items())))
            lines.append(f"the longest that one was held still: {self.longest_hold:.1f} s")
        return "\n".join([*lines, *(f"WRONG: {one}" for one in self.wrong)])


def storm(weather: Weather, folder: Path, *, calm: bool = False) -> Report:
    """Have a storm in an empty folder, which keeps the logs; `calm` leaves out what goes wrong."""
    began = time.monotonic()
    claim_seconds = weather.claim_seconds
    disks = folder / "disks"
    running = names(weather.instances)[: weather.guests]
    with (
        guests(running, lambda name: disks_of(disks, name)) as alive,
        crew(folder, database=weather.database, board=weather.board, claim_seconds=claim_seconds) as enrolled,
    ):
        made = machines(disks, folder / "state", weather.instances, weather.projects, alive)
        enrolled.enlist(workers=weather.workers, apis=weather.apis)
        report = Report(weather)
        players = {machine.name: Player(weather, machine, enrolled, report) for machine in made}
        with Watch(alive, lambda name: players[name].is_told()) as watch:
            with ThreadPoolExecutor(weather.instances) as pool:
                playing = [pool.submit(_play, player) for player in players.values()]
                # Here, not in a thread of its own: servers end with the thread that started them.
                _blow(enrolled, weather, playing, calm=calm)
            played = [one.result() for one in playing]
            _finish(enrolled)
        report.wrong += watch.wrong
        report.longest_hold = watch.longest
        for player in played:
            report.wrong += player.check()
            report.repeated += player.client.repeated
        report.wrong += enrolled.troubles + left_over(enrolled, [player.model for player in played])
        report.blows = enrolled.counts
    _judge(Ledger(enrolled.ledger), report)
    report.seconds = time.monotonic() - began
    return report


class Player:
    """Has the plan of one instance carried out, and knows what has to come of it."""

    def __init__(self, weather: Weather, machine: Machine, crew: Crew, report: Report | None = None) -> None:
        self.machine = machine
        self.weather = weather
        self.report = report or Report(weather)
        self.model = Model({disk: first_content(machine.name, disk) for disk in DISKS})
        self.client = Client(machine, crew.urls, random.Random(f"{weather.seed}-{machine.name}-urls"))
        self._moods = random.Random(f"{weather.seed}-{machine.name}-moods")
        self._marks = crew.marks

    def play(self, step: Step) -> None:
        if self.machine.guest is not None and self.model.fence is None:
            self.machine.guest.start()
        if step.kind == "write":
            self.machine.write(step.disk, step.content)
        else:
            marks = [self._marks / f"fail-restore-{self.machine.volume(disk)}" for disk in step.fails]
            for mark in marks:
                mark.touch()
            self._request(step)
            for mark in marks:
                mark.unlink()
        apply(self.model, step)

    def check(self) -> list[str]:
        """Everything that is not as it has to be after the last step."""
        shown = self.client.shown()
        if set(shown) != set(self.model.snapshots):
            return [f"{self.machine.name}: {sorted(shown)} are there instead of {sorted(self.model.snapshots)}"]
        wrong = [
            f"{name} is {shown[name]['status']} ({shown[name]['fault']}) instead of {snapshot.status}"
            for name, snapshot in self.model.snapshots.items()
            if shown[name]["status"] != snapshot.status
        ]
        return wrong + self.machine.wrong(self.model, shown) + self._held()

    def is_told(self) -> bool:
        """Whether the service tells that the guest may be held still."""
        return self.machine.mark.exists() and self.client.may_be_held()

    def _held(self) -> list[str]:
        """What holds the guest still a while after the last operation; the service lets it go by itself."""
        until = time.monotonic() + _PATIENCE
        while (found := self.machine.held()) and time.monotonic() < until:
            time.sleep(0.5)
        return [f"{self.machine.name}: {one}" for one in found]

    def _create(self, name: str) -> None:
        """Until one comes to be: of a guest that is not well it need not, but then nothing is left of it."""
        guest = self.machine.guest
        if guest is None:
            self.client.create(name)
            return
        for mood in (*moods(self._moods, self.weather.longest_hang), WELL, WELL):
            guest.start()
            guest.agent.mood = mood
            self.client.create(name)
            guest.agent.mood = WELL
            shown = self.client.shown()[name]
            self._count(mood.what, shown)
            if shown["status"] == "available":
                return
            self._require_told(shown)
            self.client.delete(name)
            wrong = self.check()
            if wrong:
                raise Failed(f"after a snapshot of a guest that {mood}: {wrong}")
        raise Failed(f"{name} of a guest that is well ended as {shown}")

    def _count(self, mood: str, shown: dict[str, Any]) -> None:
        level = (shown["consistency"] or {}).get("level")
        what = f"{mood}: {level or shown['fault']['code']}"
        self.report.moods[what] = self.report.moods.get(what, 0) + 1

    def _require_told(self, shown: dict[str, Any]) -> None:
        """A guest that is still held when its snapshot has failed is told of by it."""
        if self.machine.held() and shown["fault"]["code"] != "guest-held" and not self.is_told():
            time.sleep(1.0)
            if self.machine.held() and not self.is_told():
                raise Failed(f"the guest is held, and nobody is told: {self.machine.held()}, {shown}")

    def _request(self, step: Step) -> None:
        if step.kind == "create":
            self._create(step.snapshot)
        elif step.kind == "delete":
            self.client.delete(step.snapshot)
        elif step.kind == "undo":
            self.client.restore(step.snapshot)
        else:
            self.client.restore(step.snapshot, **({} if step.kind == "restore" else {step.kind: True}))


def _play(player: Player) -> Player:
    weather, machine, report = player.weather, player.machine, player.report
    for step in steps(weather.seed, machine.name, weather.operations // weather.instances):
        try:
            player.play(step)
            report.requests += step.kind != "write"
            wrong = player.check()
        except Exception as error:  # noqa: BLE001  # the other instances go on, and the report tells it
            wrong = [f"{machine.name}: {type(error).__name__}: {error}"]
        if wrong:
            report.wrong += [f"after {step.kind} {step.snapshot} {step.fails}: {one}" for one in wrong]
            break
    return player


def _blow(crew: Crew, weather: Weather, playing: list[Future[Player]], *, calm: bool) -> None:
    """Have things go wrong until everything has been played."""
    for blow in blows(weather.seed, claim_seconds=weather.claim_seconds, workers=weather.workers, apis=weather.apis):
        until, latest = time.monotonic() + weather.pauses * blow.after, time.monotonic() + _LULL
        written = crew.written() + _BETWEEN_BLOWS
        while time.monotonic() < until or (crew.written() < written and time.monotonic() < latest):
            crew.tend()
            if not wait(playing, 0.1).not_done:
                crew.calm()
                return
        if not calm:
            crew.strike(blow)


def _finish(crew: Crew) -> None:
    """Relieve the workers: the first look of the next ones cleans up what was left."""
    crew.relieve("worker")
    crew.relieve("api")


@contextmanager
def crew(
    folder: Path,
    *,
    database: str,
    board: str = "none",
    claim_seconds: float = 3.0,
    release: Release = THIS,
    more: Overrides = (),
) -> Iterator[Crew]:
    """A crew without anybody in it, on a database at the schema of a release; `more` are overrides."""
    with ExitStack() as stack:
        server = None
        url = f"sqlite:///{folder / 'stillframe.sqlite'}"
        if database != "sqlite":
            server = stack.enter_context(database_server(database, *_DURABLE[database]))
            url = server.create_database().render_as_string(hide_password=False)
        jobs: Any = None if board == "none" else stack.enter_context(board_server(board, folder / board))
        overrides: Overrides = [
            (None, "state_dir", str(folder / "state")),
            (None, "auth_strategy", "noauth"),
            (None, "bind_host", "127.0.0.1"),
            (None, "auth_strategy", "noauth"),
            ("database", "connection", url),
            ("database", "pool_size", 5),
            ("engine", "workers", 4),
            ("engine", "claim_seconds", claim_seconds),
            ("engine", "max_attempts", 100),
            ("drivers", "graceful_stop_seconds", 5),
            ("drivers", "first_wait", 0.1),
            ("drivers", "longest_wait", 2),
            *((("job_board", option, value) for option, value in jobs.settings.items()) if jobs else ()),
            *more,
        ]
        enrolled = Crew(folder, overrides, server, jobs)
        stack.callback(enrolled.dismiss)
        enrolled.upgrade(release)
        yield enrolled


def left_over(crew: Crew, models: list[Model]) -> list[str]:
    """What is still there of operations that are over; books and jobs are given the time of one look."""
    url = next(value for _group, option, value in crew.overrides if option == "connection")
    database = connect(str(url))
    try:
        until = time.monotonic() + _PATIENCE
        while True:
            found = _rows(database.reader, sum(model.fence is not None for model in models)) + _jobs(crew)
            if not found or time.monotonic() > until:
                return found
            crew.tend()
            time.sleep(0.5)
    finally:
        database.close()


def _rows(engine: sa.Engine, fences: int) -> list[str]:
    with engine.connect() as connection:
        unfinished = connection.execute(
            sa.select(OPERATIONS.c.id, OPERATIONS.c.state).where(OPERATIONS.c.state.in_(("pending", "running")))
        ).all()
        locks = connection.execute(sa.select(INSTANCE_LOCKS.c.operation_id)).scalars().all()
        fenced = connection.execute(sa.select(sa.func.count()).select_from(FENCES)).scalar_one()
    books = FlowBooks(engine).ids()
    found = [f"operation {one.id} is {one.state}" for one in unfinished]
    found += [f"operation {one} still holds its instance" for one in locks]
    found += [f"the book of operation {one} is left" for one in books]
    return found + ([f"there are {fenced} fences instead of {fences}"] if fenced != fences else [])


def _jobs(crew: Crew) -> list[str]:
    if crew.board is None:
        return []
    options = options_of(crew.board.settings)
    board: Any = (etcd_board if options.backend == "etcd" else redis_board).connect(options)
    try:
        return [f"the job of operation {job.name} is left" for job in board.listed()]
    finally:
        board.close()


def _judge(ledger: Ledger, report: Report) -> None:
    entries = ledger.read()
    claims = {(entry.operation, entry.generation) for entry in entries}
    report.calls = sum(entry.what == "begins" for entry in entries)
    report.claims = len(claims)
    report.taken_over = len(claims) - len({operation for operation, _generation in claims})
    report.wrong += [f"began under an old claim: {entry}" for entry in overtaken(entries)]
