"""stillframe doctor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stillframe.cli.command import Lister, Rows
from stillframe.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from stillframe.cli.health.finding import Finding
    from stillframe.settings import Settings


class Doctor(Lister):
    """Look at the settings, the database, the drivers, the instances and what was left over; changes nothing."""

    _failed = False

    def take_action(self, parsed_args: Namespace) -> Rows:  # noqa: ARG002  # it has none of its own
        """See `cliff`."""
        findings = list(_look(self.settings()))
        self._failed = any(finding.level == "fail" for finding in findings)
        columns = ("check", "result", "detail", "mend")
        return columns, [(one.check, one.level.value, one.detail, one.mend) for one in findings]

    def run(self, parsed_args: Namespace) -> int:
        """See `cliff`: the table is printed first."""
        return super().run(parsed_args) or (ExitCode.FAILED if self._failed else ExitCode.OK)


def _look(settings: Settings) -> Iterator[Finding]:
    from stillframe import main  # noqa: PLC0415  # brings the whole service along
    from stillframe.cli.health import arrays, cloud, instances, leftovers, service  # noqa: PLC0415

    yield from service.settings(settings)
    yield from service.policy(settings)
    yield from service.state_folder(settings)
    database, findings = service.open_database(settings)
    yield from findings
    drivers, findings = service.open_drivers(settings)
    yield from findings
    if "local" in (settings.drivers.compute, settings.drivers.storage):
        yield from instances.look(settings)
    if drivers is not None:
        yield from cloud.login(drivers)
    yield from arrays.look(settings)
    if drivers is not None and settings.drivers.storage == "storage_virtualize":
        yield from arrays.volumes(drivers)
    if database is not None:
        yield from leftovers.operations(database, main.utcnow())
    if database is not None and drivers is not None:
        yield from leftovers.copies(settings, database, drivers)
        yield from leftovers.fences(database, drivers)
    if database is not None:
        database.close()
