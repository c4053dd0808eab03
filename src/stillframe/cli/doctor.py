"""stillframe doctor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stillframe.cli.command import Lister, Rows
from stillframe.cli.exit_codes import CommandFailed, ExitCode
from stillframe.domain.printable import printable

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Sequence


_FINDING: Final = ("check", "result", "detail", "mend")
_REPAIR: Final = ("kind", "of", "what", "result", "detail")


_TIMEOUT: Final = 30.0
_LONGEST: Final = 86400.0


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < _LONGEST:
        raise ValueError
    return seconds


class Doctor(Lister):
    """Check the settings, the database, the drivers, the instances, and look for leftovers; changes nothing.

    With --repair, remove leftovers instead: they are listed first, and you are asked unless --yes is given.
    """

    _failed = False

    def get_parser(self, prog_name: str) -> ArgumentParser:
        """See `cliff`."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--repair",
            action="store_true",
            help="Remove leftovers that certainly belong to this service and that nobody needs.",
        )
        parser.add_argument(
            "--also",
            metavar="ID",
            action="append",
            default=[],
            help="With --repair, also remove uncertain leftovers of this instance snapshot or operation, such as "
            "copies that another service may have made (may be repeated).",
        )
        parser.add_argument(
            "--timeout",
            metavar="SECONDS",
            type=_seconds,
            default=_TIMEOUT,
            help="How long what is looked at, or removed, may take to answer before the doctor says that it does not, "
            "and goes on with the rest (%(default)g).",
        )
        parser.add_argument("--yes", action="store_true", help="With --repair, do not ask.")
        return parser

    def columns(self, parsed_args: Namespace) -> Sequence[str]:
        """See `Lister`."""
        return _REPAIR if parsed_args.repair else _FINDING

    def take_action(self, parsed_args: Namespace) -> Rows:
        """See `cliff`."""
        if parsed_args.repair:
            return self._repair(parsed_args)
        if parsed_args.also or parsed_args.yes:
            raise CommandFailed(ExitCode.USAGE, "--also and --yes go with --repair")
        from stillframe.cli.checks import BrokenOff, apart  # noqa: PLC0415
        from stillframe.cli.health import look  # noqa: PLC0415  # brings the whole service along
        from stillframe.drivers.finding import fail  # noqa: PLC0415

        settings, seconds, findings = self.settings(), parsed_args.timeout, []
        try:
            for finding in apart(lambda: look(settings, seconds), seconds):
                findings.append(finding)  # noqa: PERF402  # what was found before it breaks off counts
        except BrokenOff as broken:
            findings.append(fail("doctor", str(broken), broken.mend))
        self._failed = any(finding.level == "fail" for finding in findings)
        return _FINDING, [(one.check, one.level.value, one.detail, one.mend) for one in findings]

    def _repair(self, parsed_args: Namespace) -> Rows:
        from stillframe.cli import repairs  # noqa: PLC0415  # brings the whole service along
        from stillframe.cli.checks import BrokenOff, apart  # noqa: PLC0415

        settings, seconds, also = self.settings(), parsed_args.timeout, frozenset(parsed_args.also)
        try:
            planned = list(apart(lambda: repairs.plan(settings, also, seconds), seconds))
            to_remove = [one.line for one in planned if one.to_remove]
            if to_remove and (parsed_args.yes or self._agreed(to_remove)):
                came_of = list(apart(lambda: repairs.removals(settings, planned, seconds), seconds))
            else:
                came_of = [one.left() for one in planned]
        except BrokenOff as broken:
            raise CommandFailed(ExitCode.FAILED, f"{broken}; {broken.mend}") from None
        self._failed = any(repair.result == "failed" for repair in came_of)
        return _REPAIR, [(one.kind, one.about, one.place, one.result, one.detail) for one in came_of]

    def _agreed(self, plan: Sequence[str]) -> bool:
        for line in plan:
            print(printable(line), file=self.app.stderr)
        if not self.app.stdin.isatty():
            raise CommandFailed(ExitCode.USAGE, "there is nobody to ask; --yes removes them without asking")
        print(f"Remove these {len(plan)}? [y/N] ", end="", file=self.app.stderr, flush=True)
        return str(self.app.stdin.readline()).strip().lower() in ("y", "yes")

    def run(self, parsed_args: Namespace) -> int:
        """See `cliff`: the table is printed first."""
        return super().run(parsed_args) or (ExitCode.FAILED if self._failed else ExitCode.OK)
