"""A Prometheus with the configuration that we hand out sees what breaks, and that it was mended."""

from __future__ import annotations

import shutil
import signal
import time
from typing import TYPE_CHECKING, Any, Final

import requests

from tests.cli.program import Place, started
from tests.databases import database_server
from tests.deploy.serving import DEPLOY, free_port, serving

if TYPE_CHECKING:
    from pathlib import Path

_PATIENCE: Final = 180.0


class Watch:
    """The alerts of a Prometheus that scrapes every second."""

    def __init__(self, address: str) -> None:
        self._address = address

    def firing(self) -> set[str]:
        document: Any = requests.get(f"{self._address}/api/v1/alerts", timeout=30).json()
        return {one["labels"]["alertname"] for one in document["data"]["alerts"] if one["state"] == "firing"}

    def wait(self, *, there: frozenset[str] = frozenset(), gone: frozenset[str] = frozenset()) -> None:
        until = time.monotonic() + _PATIENCE
        while not (there <= (firing := self.firing()) and not gone & firing):
            assert time.monotonic() < until, (firing, there, gone)
            time.sleep(0.2)

    def wait_for_scrapes(self, count: int) -> None:
        """Until so many targets are up."""
        until = time.monotonic() + _PATIENCE
        query = {"query": "sum(up) and max(stillframe_workers_alive) == 1"}
        while True:
            document: Any = requests.get(f"{self._address}/api/v1/query", params=query, timeout=30).json()
            found = document["data"]["result"]
            if found and float(found[0]["value"][1]) == count:
                return
            assert time.monotonic() < until, document
            time.sleep(0.2)


def configured(folder: Path, api: int, worker: int) -> Path:
    """Our configuration, with other targets, and a scrape each second."""
    text = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
    text = text.replace("15s", "1s").replace("127.0.0.1:8790", f"127.0.0.1:{api}")
    text = text.replace("127.0.0.1:8791", f"127.0.0.1:{worker}").replace("          - 127.0.0.1:8792\n", "")
    shutil.copy(DEPLOY / "prometheus" / "stillframe.rules.yml", folder)
    path = folder / "prometheus.yml"
    path.write_text(text)
    return path


def test_prometheus_sees_what_breaks_and_that_it_was_mended(tmp_path: Path) -> None:
    place, ports = Place(tmp_path), [free_port() for _ in range(3)]
    api, address = (f"http://127.0.0.1:{port}" for port in (ports[0], ports[2]))
    token: dict[str, str] = {}
    prometheus = [
        *(
            "prometheus",
            f"--config.file={configured(tmp_path, *ports[:2])}",
            f"--web.listen-address=127.0.0.1:{ports[2]}",
        ),
        f"--storage.tsdb.path={tmp_path / 'series'}",
    ]
    no_worker = frozenset({"StillframeNoWorker", "StillframeProcessDown"})
    with database_server("postgresql") as server:
        place.configure(
            database__connection=server.create_database().render_as_string(hide_password=False),
            engine__claim_seconds="2",
            worker__metrics_bind_port=str(ports[1]),
        )
        place.config.write_text(place.config.read_text().replace("bind_port = 0", f"bind_port = {ports[0]}", 1))
        place.good("db", "upgrade")
        watch = Watch(address)
        with started(place, "api"), serving(prometheus, f"{address}/-/ready", tmp_path / "prometheus.log", {}):
            with started(place, "worker") as worker:
                watch.wait_for_scrapes(2)
                watch.wait(gone=frozenset({*no_worker, "StillframeDown", "StillframeDatabaseDown"}))
                instance = place.instance("web", root=b"one")

                worker.process.send_signal(signal.SIGSTOP)
                watch.wait(there=no_worker)
                body = {"vm-snapshot": {"name": "one", "description": "", "volumes": []}}
                token["X-Auth-Token"] = place.token
                uri = f"{api}/compute/v2.1/default/servers/{instance.id}/action"
                assert requests.post(uri, json=body, headers=token, timeout=60).status_code == 200
                instance.disks[0].path.unlink()
                worker.process.send_signal(signal.SIGCONT)
                watch.wait(there=frozenset({"StillframeOperationFailed"}), gone=no_worker)

                worker.process.kill()
                watch.wait(there=no_worker)
            with started(place, "worker"):
                watch.wait(gone=no_worker)

                server.stop()
                watch.wait(there=frozenset({"StillframeDatabaseDown"}))
                listed = requests.get(f"{api}/volume/v3/default/instance-snapshots", headers=token, timeout=60)
                assert listed.status_code == 503
                watch.wait(there=frozenset({"StillframePlatformUnavailable"}))
                server.start()
                watch.wait(gone=frozenset({"StillframeDatabaseDown", *no_worker}))
