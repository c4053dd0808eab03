"""stillframe db accept-older: go on with an older state of the database that was put back."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final

from stillframe.cli.command import Lister, Rows
from stillframe.cli.exit_codes import CommandFailed, ExitCode, usable_settings
from stillframe.domain.printable import printable

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Sequence

    from stillframe.service.acceptance import Plan

_COLUMNS: Final = ("instance_snapshot", "was", "is", "detail")
_KEPT: Final = "not on record: copies that were made later, or another service's; nothing removes them by itself"


class AcceptOlder(Lister):
    """Accept an older state of the database that was put back, and have the service work on with it.

    What the platform has decides what becomes of each instance snapshot. That is listed first, and you are asked unless
    --yes is given; no volume and no copy is changed. It may run beside the service.
    """

    def get_parser(self, prog_name: str) -> ArgumentParser:
        """See `cliff`."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--unnoticed",
            action="store_true",
            help="Say that an older state was put back though no state folder remembers a later one, as on new "
            "machines: what is open in it is settled as failed at once, and the rest is asked for.",
        )
        parser.add_argument("--yes", action="store_true", help="Do not ask.")
        return parser

    def columns(self, parsed_args: Namespace) -> Sequence[str]:  # noqa: ARG002  # they are always the same
        """See `Lister`."""
        return _COLUMNS

    def take_action(self, parsed_args: Namespace) -> Rows:
        """See `cliff`."""
        from stillframe import main  # noqa: PLC0415  # brings the whole service along
        from stillframe.cli.health import usable_database  # noqa: PLC0415
        from stillframe.domain.errors import Conflict, StillframeError  # noqa: PLC0415
        from stillframe.drivers.registry import open_drivers  # noqa: PLC0415

        settings = self.settings()
        database = usable_database(settings)
        with closing(database), usable_settings():
            acceptance = main.build_acceptance(settings, database, open_drivers(settings))
            try:
                noticed = acceptance.notice(unnoticed=parsed_args.unnoticed)
                if noticed is None:
                    raise CommandFailed(
                        ExitCode.REFUSED,
                        "nobody has noticed that an older state of the database was put back; if one was, say so with "
                        "--unnoticed",
                    )
                plan = acceptance.plan(noticed)
                self._require_agreement(plan, yes=parsed_args.yes)
                acceptance.accept(plan)
            except Conflict as error:
                raise CommandFailed(ExitCode.REFUSED, error.message) from None
            except StillframeError as error:
                raise CommandFailed(
                    ExitCode.UNAVAILABLE, f"nobody knows what is there, so nothing was accepted: {error.message}"
                ) from None
        return _COLUMNS, _rows(plan)

    def _require_agreement(self, plan: Plan, *, yes: bool) -> None:
        if yes:
            return
        noticed = plan.noticed
        lines = [
            f"an older state of the database was put back; {noticed.noticed_by} noticed at {noticed.noticed_at} UTC"
        ]
        lines += [f"{about}: {was} -> {becomes}: {why}" for about, was, becomes, why in _rows(plan)]
        for line in lines:
            print(printable(line), file=self.app.stderr)
        if not self.app.stdin.isatty():
            raise CommandFailed(ExitCode.USAGE, "there is nobody to ask; --yes accepts it without asking")
        print("Accept this state? [y/N] ", end="", file=self.app.stderr, flush=True)
        if str(self.app.stdin.readline()).strip().lower() not in ("y", "yes"):
            raise CommandFailed(ExitCode.REFUSED, "it was not accepted")


def _rows(plan: Plan) -> list[tuple[str, str, str, str]]:
    changes = [
        (change.snapshot.id, change.snapshot.status.value, change.status.value, change.why) for change in plan.changes
    ]
    unknown = sorted({copy.name.snapshot_id for copy in plan.unknown})
    return [*changes, *((snapshot_id, "-", "-", _KEPT) for snapshot_id in unknown)]
