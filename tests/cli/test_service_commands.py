"""The service as a process: how it starts, refuses to, and ends; its database; and the doctor."""

from __future__ import annotations

import ctypes
import itertools
import json
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import bcrypt
import pytest
import requests
import sqlalchemy as sa

from stillframe.cli.commands import COMMANDS
from stillframe.cli.exit_codes import MEANINGS, ExitCode
from tests.cli.program import started

if TYPE_CHECKING:
    from tests.cli.program import Place


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(place: Place, how: signal.Signals) -> None:
    with started(place, "serve") as service:
        assert service.said.startswith("stillframe serves on http://127.0.0.1:")
        assert service.end(how) == 0
        assert "Traceback" not in service.log.read_text()
        assert (place.folder / "serve.out").read_text() == f"{service.said}\n"


def test_a_request_that_came_before_the_signal_is_answered(place: Place) -> None:
    with started(place, "serve") as service:
        address = place.variables["STILLFRAME_ENDPOINT"].removeprefix("http://").split(":")
        with socket.create_connection((address[0], int(address[1]))) as connection:
            connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(1)
            service.process.terminate()
            rest = b""
            while chunk := connection.recv(4096):
                rest += chunk
        assert b"200 OK" in rest
        assert service.process.wait(30) == 0


def test_two_do_not_work_on_one_folder(place: Place) -> None:
    with started(place, "serve") as service:
        second = place.run("serve")
        assert second.code == 4
        assert f"works on {place.folder / 'state'} already (process {service.process.pid})" in second.err


def test_what_was_accepted_survives_a_kill(place: Place) -> None:
    place.instance("i", root=b"r")
    with started(place, "serve") as service:
        place.good("snapshot", "create", "s", "--instance", "i")
        service.end(signal.SIGKILL)
    with started(place, "serve"):
        place.good("snapshot", "progress", "s", "--wait")
        assert place.statuses() == {"s": "available"}


def test_everybody_is_let_in_on_loopback_only(place: Place) -> None:
    place.configure(auth_strategy="noauth", bind_host="0.0.0.0")  # noqa: S104  # that it is refused is the point
    refused = place.run("serve")
    assert (refused.code, "loopback" in refused.err) == (2, True)


def test_a_port_in_use_is_told(place: Place) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        place.configure(bind_port=str(other.getsockname()[1]))
        refused = place.run("serve")
    assert (refused.code, "cannot listen on 127.0.0.1" in refused.err) == (1, True)


def test_settings_that_cannot_be_used(place: Place) -> None:
    place.configure(bind_port="many")
    for command in (("serve",), ("doctor",), ("db", "check")):
        refused = place.run(*command)
        assert (refused.code, "bind_port" in refused.err) == (2, True)


def test_passwords_are_asked_for(place: Place) -> None:
    users = place.folder / "htpasswd"
    users.write_bytes(b"alice:" + bcrypt.hashpw(b"right", bcrypt.gensalt(4)) + b"\n")
    place.configure(
        auth_strategy="http_basic", http_basic__user_file=str(users), http_basic__grants="alice:default:reader"
    )
    place.instance("i", root=b"r")
    with started(place, "serve"):
        alice = {"OS_AUTH_TYPE": "http_basic", "OS_USERNAME": "alice", "OS_PASSWORD": "right"}
        assert place.run("snapshot", "list", **alice).code == 0
        assert place.run("snapshot", "list", **{**alice, "OS_PASSWORD": "wrong"}).code == 5
        assert place.run("snapshot", "list").code == 5
        forbidden = place.run("snapshot", "create", "s", "--instance", "i", **alice)
        assert (forbidden.code, "snapshot:create" in forbidden.err) == (5, True)


def test_the_database_is_checked_and_upgraded(place: Place) -> None:
    needed = place.run("db", "check")
    assert (needed.code, "run: stillframe db upgrade" in needed.out) == (1, True)
    assert not (place.folder / "state").exists()
    assert place.good("db", "upgrade").out.startswith("upgraded from None to ")
    assert place.good("db", "check").out.startswith("the database is at this release's revision")
    assert place.good("db", "upgrade").out.startswith("the database is at revision")


def test_a_release_can_be_gone_back_to(place: Place) -> None:
    place.good("db", "upgrade")
    url = sa.make_url(f"sqlite:///{place.folder / 'state' / 'stillframe.sqlite'}")
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE stillframe_version SET version_num = '9999'")
    engine.dispose()
    assert "9999 of a later release" in place.good("db", "check").out
    assert place.good("db", "upgrade").out == "the database is at revision 9999\n"
    place.instance("i", root=b"r")
    with started(place, "serve"):
        place.good("snapshot", "create", "s", "--instance", "i", "--wait")


def test_a_database_that_does_not_answer(place: Place) -> None:
    place.configure(database__connection="postgresql+psycopg://u:secret@127.0.0.1:9/db")
    for command in (("serve",), ("db", "check")):
        refused = place.run(*command)
        assert refused.code == 6
        assert "secret" not in refused.err + refused.out


def test_processes_apart_need_a_server(place: Place) -> None:
    for command in ("api", "worker"):
        refused = place.run(command)
        assert (refused.code, "stillframe serve" in refused.err) == (2, True)


@pytest.mark.parametrize("server_kind", ["postgresql", "mariadb"])
def test_an_api_accepts_what_workers_work_off(place: Place, database_url: sa.URL) -> None:
    place.configure(database__connection=database_url.render_as_string(hide_password=False))
    assert place.run("api").code == 2
    place.good("db", "upgrade")
    place.instance("i", root=b"r")
    with started(place, "api"):
        place.good("snapshot", "create", "s", "--instance", "i")
        time.sleep(1.5)
        assert place.statuses() == {"s": "creating"}
        with started(place, "worker"), started(place, "worker"):
            place.good("snapshot", "progress", "s", "--wait")
            drop_connections(database_url)
            place.good("snapshot", "create", "t", "--instance", "i", "--wait")
            assert place.statuses() == {"s": "available", "t": "available"}
        # Those before have taken their leave.
        with started(place, "worker") as worker:
            (listed,) = place.good("worker", "list", "-f", "json").document
            assert (listed["binary"], listed["host"], listed["state"]) == (
                "stillframe-worker",
                socket.gethostname(),
                "up",
            )
            assert worker.end() == 0


@pytest.mark.parametrize("server_kind", ["postgresql"])
def test_a_signal_that_another_thread_gets_ends_a_worker_too(place: Place, database_url: sa.URL) -> None:
    place.configure(database__connection=database_url.render_as_string(hide_password=False))
    place.good("db", "upgrade")
    with started(place, "worker") as worker:
        pid = worker.process.pid
        other = next(int(task.name) for task in Path(f"/proc/{pid}/task").iterdir() if int(task.name) != pid)
        # The kernel may choose any thread, and does where the main one is about to wake up from a SIGSTOP.
        assert ctypes.CDLL(None).tgkill(pid, other, signal.SIGTERM) == 0
        assert worker.process.wait(60) == 0


@pytest.mark.parametrize("server_kind", ["postgresql"])
def test_a_worker_shows_its_metrics(place: Place, database_url: sa.URL) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    url = database_url.render_as_string(hide_password=False)
    place.configure(database__connection=url, worker__metrics_bind_port=port)
    place.good("db", "upgrade")
    place.instance("i", root=b"r")
    with started(place, "worker") as worker, started(place, "api"):
        assert worker.said == f"stillframe works off what is accepted, metrics on http://127.0.0.1:{port}/metrics"
        place.good("snapshot", "create", "s", "--instance", "i", "--wait")
        shown = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=30)
        assert 'stillframe_operations_total{action="snapshot",outcome="succeeded"} 1.0' in shown.text
        assert "stillframe_janitor_sweeps" in shown.text
        assert requests.get(f"http://127.0.0.1:{port}/healthcheck", timeout=30).status_code == 200
        assert requests.get(f"http://127.0.0.1:{port}/volume/v3/p/instance-snapshots", timeout=30).status_code == 404
        second = place.run("worker", OS_WORKER__METRICS_BIND_PORT=port, OS_DEFAULT__STATE_DIR=str(place.folder / "b"))
        assert second.code != 0
        assert worker.end() == 0


def test_the_log_can_be_json(place: Place) -> None:
    secret = "not-for-the-log"
    place.configure(use_json="true", debug="true", openstack__auth_type="password", openstack__password=secret)
    place.instance("i", root=b"r")
    with started(place, "serve") as service:
        place.good("snapshot", "create", "s", "--instance", "i", "--wait")
        answer = requests.get(f"{place.variables['STILLFRAME_ENDPOINT']}/healthcheck", timeout=30)
    # What libraries say while they are imported comes before there is a log.
    written = itertools.dropwhile(lambda line: not line.startswith("{"), service.log.read_text().splitlines())
    lines = [json.loads(line) for line in written]
    (about,) = [line["context"] for line in lines if "/healthcheck" in line["message"]]
    assert about["request_id"] == answer.headers["x-openstack-request-id"]
    assert secret not in service.log.read_text()


def drop_connections(url: sa.URL) -> None:
    """End every connection to a database but this one."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            return
        found = connection.exec_driver_sql(
            "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()"
        )
        for (number,) in found.all():
            connection.exec_driver_sql(f"KILL CONNECTION {number}")


def test_the_doctor_of_a_healthy_service(served: Place) -> None:
    served.instance("healthy", root=b"r")
    findings = served.good("doctor", "-f", "json").document
    assert {one["check"] for one in findings} >= {"settings", "policy", "database", "drivers", "operations", "fences"}
    assert [one for one in findings if one["result"] == "fail"] == []


def test_the_doctor_looks_at_the_job_board(place: Place) -> None:
    place.configure(job_board__backend="redis", job_board__port="9", job_board__timeout="1")
    found = {one["check"]: one for one in place.run("doctor", "-f", "json").document}
    assert (found["job board"]["result"], "redis" in found["job board"]["detail"]) == ("warn", True)


def test_the_doctor_changes_nothing_where_nothing_is(place: Place) -> None:
    findings = place.good("doctor", "-f", "json").document
    assert "warn" in [one["result"] for one in findings]
    assert not (place.folder / "state").exists()


def test_the_doctor_finds_what_is_wrong(place: Place) -> None:
    place.instance("whole", root=b"r")
    place.instance("torn", root=b"r")
    with started(place, "serve"):
        place.good("snapshot", "create", "s", "--instance", "whole", "--wait")
    (place.folder / "disks" / "torn-root.img").unlink()
    (place.folder / "state" / "instances" / "broken.toml").write_text("id = 1")
    (place.folder / "state" / "stillframe.sqlite").unlink()
    place.good("db", "upgrade")
    done = place.run("doctor", "-f", "json")
    assert done.code == 1
    problems = {one["check"]: one for one in done.document if one["result"] != "ok"}
    assert problems.keys() == {"disk torn/root", "instance file", "copies", "workers"}
    assert problems["disk torn/root"]["result"] == "fail"
    assert "broken.toml" in problems["instance file"]["mend"]
    assert str(place.folder / "disks" / ".stillframe") in problems["copies"]["detail"]
    assert "doctor --repair --also" in problems["copies"]["mend"]


def test_the_doctor_names_a_folder_that_others_may_write_to_and_its_advice_mends_it(place: Place) -> None:
    place.instance("shared", root=b"r")
    (place.folder / "disks").chmod(0o777)
    done = place.run("doctor", "-f", "json")
    (found,) = [one for one in done.document if one["check"] == "disk shared/root"]
    assert (done.code, found["result"], str(place.folder / "disks") in found["detail"]) == (1, "fail", True)
    subprocess.run(shlex.split(found["mend"]), check=True)
    again = place.run("doctor", "-f", "json").document
    assert "disk shared/root" not in {one["check"] for one in again}


def test_the_service_is_not_there(place: Place) -> None:
    unreachable = place.run("snapshot", "list", STILLFRAME_ENDPOINT="http://127.0.0.1:9")
    assert unreachable.code == 6
    assert unreachable.err.startswith("http://127.0.0.1:9 does not answer")
    assert len(unreachable.err.splitlines()) == 1


@pytest.mark.parametrize("arguments", [[], ["nope"], ["snapshot", "create"], ["snapshot", "list", "-f", "nope"]])
def test_a_wrong_command_line(place: Place, arguments: list[str]) -> None:
    assert place.run(*arguments).code == 2


def test_every_command_explains_itself(place: Place) -> None:
    listed = place.good("--help").out
    assert all(name in listed for name in COMMANDS)


def test_every_exit_code_is_explained() -> None:
    assert set(MEANINGS) == set(ExitCode)


def test_what_a_command_does_not_need_is_not_imported() -> None:
    heavy = "sqlalchemy,taskflow,falcon,oslo_policy,keystonemiddleware,openstack,rich"
    code = f"import sys, stillframe.cli.main; print([name for name in {heavy.split(',')} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
