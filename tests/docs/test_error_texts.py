"""Errors are told in one style: whole sentences that say what is wrong and how to mend it, fit for who reads them."""

from __future__ import annotations

import re
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Final

from stillframe.domain.disclosure import without_paths
from stillframe.drivers.block_jobs import Words
from stillframe.drivers.qemu.commands import Qemu
from tests.docs.error_sites import VALUE, Site, sites

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS: Final = Path(__file__).resolve().parents[1]
#: Programs; a sentence may begin with the name of one, and end with a command of one, without a full stop.
PROGRAMS: Final = ("qemu-img", "prlimit", "openstack", "stillframe")
#: Nova's own words, which its clients may know.
OTHERS: Final = ("Malformed request", "Cannot '")
#: Kinds that need no advice: what is not there is not there, what is down is tried again, who was overtaken is done,
#: and what is wrong with the service itself is not for its users to mend.
SELF_EVIDENT: Final = frozenset(
    {
        "DeadlineExceeded",
        "Forbidden",
        "Interrupted",
        "NotFound",
        "StillframeError",
        "Superseded",
        "Unauthorized",
        "Unavailable",
    }
)
#: What a reader is told to do: the words that a clause of advice begins with, or that make one of any sentence.
VERBS: Final = re.compile(
    r"(add|ask|attach|cancel|choose|convert|copy|correct|declare|delete|detach|do|encrypt|end|give|have|install|leave|let"
    r"|look|make|mend|merge|mount|move|name|put|raise|remove|repair|repeat|resize|restart|restore|retry|run|say|see|set"
    r"|shut|start|stop|take|try|undo|uninstall|unlock|unpause|update|use|wait)\b",
    re.IGNORECASE,
)
#: What else is advice: a duty, where more is said, a question.
DUTIES: Final = re.compile(r"\b(must|needs?|has to|have to|only|at most|says why|belongs|has accepted)\b|\?$")
#: Where a clause begins.
CLAUSE: Final = re.compile(r"[.;:,?!(]\s+|\b(?:and|or|then|else|first)\s+")
#: Calls whose text is somebody else's: it was checked where it was written, or a foreign speaker's words are in it.
PASSED_ON: Final[dict[str, str]] = {
    "api/app.py::respond": "what a parser of a query's values says",
    "api/auth/token_file.py::_foreign": "the class writes the text from a path and an owner",
    "api/auth/token_file.py::_require_owner": "the class writes the text from a path and an owner",
    "api/errors.py::invalid": "what pydantic says",
    "drivers/image_files/opening.py::_unverified": "the class writes the text from what is wrong with a folder",
    "drivers/absent.py::find": "what the driver beside says that does not answer in part",
    "drivers/router.py::_first": "its callers say what nobody has",
    "drivers/router.py::find": "what the drivers say that do not answer",
    "drivers/storage.py::__init__": "its callers say who does not answer",
    "drivers/storage_virtualize/books.py::find": "what the arrays say that do not answer",
    "service/instance_snapshots.py::_require_off_or_to_be_stopped": "what the platform says of an instance in between",
}
#: The commands that texts tell of.
COMMANDS: Final = re.compile(
    r"qemu-img (?:check|commit|convert|rebase|resize)|openstack \w+ (?:service )?\w+|stillframe \w+ [a-z]+-?[a-z]+"
    r"|(?<=\()(?:block-commit|block-job-cancel|chuser|find -samefile|fuser)"
)
#: Who follows each.
FOLLOWED: Final[dict[str, str]] = {
    "block-commit": "conformance/test_files_advice.py::test_an_overlay_over_a_disk_that_is_in_use_is_merged",
    "block-job-cancel": "conformance/test_files_images.py::test_a_block_job_of_somebody_else_refuses_the_restore",
    "openstack server start": (
        "openstack/test_dead_compute_host.py"
        "::test_a_host_that_dies_in_the_restore_leaves_the_server_off_and_no_start_queued"
    ),
    "openstack server unpause": (
        "openstack/test_pause_outcomes.py::test_an_unpause_that_nobody_sees_is_a_guest_that_may_be_held"
    ),
    "qemu-img check": "conformance/test_files_advice.py::test_an_image_that_is_marked_as_corrupt_is_repaired",
    "qemu-img commit": "conformance/test_files_images.py::test_an_overlay_that_nobody_declared_refuses_the_restore",
    "qemu-img convert": "conformance/test_files_advice.py::test_an_image_of_too_small_clusters_is_converted",
    "qemu-img rebase": "conformance/test_files_advice.py::test_a_backing_file_of_two_formats_is_given_one_and_kept",
    "qemu-img resize": "conformance/test_files_advice.py::test_a_disk_that_was_resized_is_resized_back",
    "stillframe db accept-older": (
        "recovery/test_program.py::test_an_operator_who_goes_by_what_the_program_says_loses_nothing"
    ),
    "stillframe db upgrade": "cli/test_service_commands.py::test_the_database_is_checked_and_upgraded",
}
#: Commands that only show something.
SHOWING: Final = {"find -samefile", "fuser", "openstack volume service list"}
#: Where only operators read what is raised: the start of the service, its command line, and the declaring of instances.
FOR_OPERATORS: Final = (
    "settings/",
    "cli/",
    "main.py",
    "wsgi.py",
    "service/witness.py",
    "api/auth/token",
    "drivers/qemu/declaration.py",
)
#: Expressions that are paths of the host, and such that are names of what may be another tenant's.
PATHS: Final = re.compile(r"\b_?(path|folder|file|log|socket|root|filename)\)?$")
FOREIGN: Final = re.compile(r"^(other|taken|neighbour|somebody)\b")


def sentences() -> Iterator[tuple[Site, str]]:
    """The texts that stand by themselves; with the key of a request before it, a text goes on after a colon."""
    for site in sites():
        if site.text is not None and not site.keyed and not site.text.startswith(OTHERS):
            yield site, site.text


def is_passed_on(text: str) -> bool:
    """Whether a text ends in what somebody else says, which tells what to do or is all that is known."""
    return text.rstrip("').").endswith(VALUE)


def has_advice(text: str) -> bool:
    """Whether a clause of the text tells the reader to do something."""
    return any(map(VERBS.match, CLAUSE.split(text))) or DUTIES.search(text) is not None


def filled(one: Site, text: str) -> str:
    """The text with a path in it wherever it tells one, and with a word for each other value."""
    for value in one.values:
        text = text.replace(VALUE, "/srv/a b/c" if PATHS.search(value) else "something", 1)
    return text


def test_an_error_says_what_is_written_beside_it_or_is_passed_on_for_a_reason() -> None:
    assert len(sites()) > 400
    assert len({site.place for site in sites() if site.module.startswith("drivers/")}) > 120
    unread = {site.place for site in sites() if site.text is None}
    assert unread == PASSED_ON.keys()


def test_an_error_is_told_in_whole_sentences() -> None:
    small = [str(one) for one, text in sentences() if text[:1].islower() and not text.startswith(PROGRAMS)]
    open_ended = [
        str(one)
        for one, text in sentences()
        if not text.endswith((".", "?", VALUE)) and not text.rpartition(": ")[2].startswith(PROGRAMS)
    ]
    assert (small, open_ended) == ([], [])


def test_an_error_about_a_key_goes_on_after_the_key() -> None:
    keyed = [one for one in sites() if one.keyed and one.text is not None]
    assert len(keyed) > 30
    assert [str(one) for one in keyed if (one.text or "")[:1].isupper()] == []


def test_an_error_says_how_to_mend_it() -> None:
    without = [
        str(one)
        for one, text in sentences()
        if one.kind not in SELF_EVIDENT and not has_advice(text) and not is_passed_on(text)
    ]
    assert without == []


def test_a_path_in_an_error_is_kept_from_tenants() -> None:
    read = [(one, text) for one, text in sentences() if not one.module.startswith(FOR_OPERATORS)]
    with_paths = {one: filled(one, text) for one, text in read if any(map(PATHS.search, one.values))}
    assert with_paths
    assert [told for told in map(without_paths, with_paths.values()) if "/srv" in told or "b/c" in told] == []


def test_an_error_names_nothing_of_somebody_else_s() -> None:
    named = {one.module for one in sites() if any(FOREIGN.search(value) for value in one.values)}
    assert named == {"drivers/qemu/declaration.py"}, "where somebody declares instances, on the machine itself"


def test_a_command_that_an_error_advises_is_followed_by_a_test() -> None:
    texts = [one.text or "" for one in sites()] + [told for one in (Words(), Qemu.words) for told in astuple(one)]
    advised = {command for text in texts for command in COMMANDS.findall(text)}
    assert advised == FOLLOWED.keys() | SHOWING
    for command, test in FOLLOWED.items():
        path, _, name = test.partition("::")
        assert f"def {name}(" in (TESTS / path).read_text(encoding="utf-8"), command
