"""A Prometheus with the configuration that we hand out, and what it has seen, by its own time stamps."""

from __future__ import annotations

import re
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import requests
import yaml  # type: ignore[import-untyped]

from tests.deploy.serving import DEPLOY, free_port, serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_PATIENCE: Final = 300.0
#: A scrape each second instead of each 15, and the times in the rules: what they look back to, and what they wait for.
#: On a busy machine many scrapes come to nothing, for none may take longer than the pace: what is told is told for long
#: enough that one of them sees it.
INTERVAL: Final = 1.0
#: How late a job may be.
OVERDUE_SECONDS: Final = 15
SCALED: Final[Mapping[str, str]] = {
    "[1h]": "[30s]",
    "[3h]": "[60s]",
    "< 3600": "< 30",
    "> 3600": f"> {OVERDUE_SECONDS}",
    "for: 5m": "for: 3s",
    "for: 15m": "for: 3s",
}
_TIMES: Final = re.compile(r"\[\d+[smh]\]|for: \d+[smh]|< \d{3,}|> 3600\b")


def scaled_rules() -> str:
    """The rules that we hand out, with `SCALED` for all of their times."""
    return _TIMES.sub(lambda found: SCALED[found[0]], (DEPLOY / "prometheus" / "stillframe.rules.yml").read_text())


class Watch:
    """What a Prometheus at an address says."""

    def __init__(self, address: str) -> None:
        self._address = address
        document = yaml.safe_load(scaled_rules())
        self._rules = {rule["alert"]: rule["expr"] for group in document["groups"] for rule in group["rules"]}

    def firing(self) -> list[dict[str, str]]:
        """The labels of each alert that fires."""
        found: Any = self._get("alerts", {})["alerts"]
        return [one["labels"] for one in found if one["state"] == "firing"]

    def seen(self, alert: str, since: float, **labels: str) -> None:
        """Wait until an alert has fired; its rule has to hold two scrapes of a target after `since`, of the epoch.

        Scrapes are counted by their time stamps, so however late the test or Prometheus' evaluation comes, it is the
        same two. One that was not answered tells nothing, unless that is what the alert is about.
        """
        wait(lambda: self._has_fired(alert, since, labels), f"{alert} fires for {labels}", lambda: str(self.firing()))
        silent = "up{" in self._rules[alert]
        scrapes = wait(
            lambda: self._second_scrapes(since, labels.get("instance"), silent=silent),
            "there are two scrapes",
            lambda: str(self.query("up")),
        )
        found = {at - since: self.query(self._rules[alert], at + 0.001) for at in scrapes}
        held = (labels.items() <= one["metric"].items() for after in found.values() for one in after)
        assert any(held), (alert, labels, found)

    def gone(self, alert: str, **labels: str) -> None:
        """Wait until an alert does not fire."""
        wait(lambda: not self._fires(alert, labels), f"{alert} for {labels} ends", lambda: str(self.firing()))

    def quiet(self) -> None:
        """Wait until nothing fires."""
        wait(lambda: not self.firing(), "no alert fires", lambda: str(self.firing()))

    def value(self, query: str) -> float:
        """The one value of a query; not a number where there is none."""
        found = self.query(query)
        return float(found[0]["value"][1]) if found else float("nan")

    def query(self, query: str, at: float | None = None) -> list[dict[str, Any]]:
        result: list[dict[str, Any]] = self._get("query", {"query": query, **({"time": at} if at else {})})["result"]
        return result

    def _fires(self, alert: str, labels: Mapping[str, str]) -> bool:
        return any({"alertname": alert, **labels}.items() <= one.items() for one in self.firing())

    def _has_fired(self, alert: str, since: float, labels: Mapping[str, str]) -> bool:
        # Times in the rules are scaled, so that an alert may be over before anybody asks.
        wanted = {"alertname": alert, "alertstate": "firing", **labels}
        found = self.query(f"ALERTS{{{','.join(f'{name}={value!r}' for name, value in wanted.items())}}}[10m]")
        return any(at > since for one in found for at, _ in one["values"])

    def _second_scrapes(self, since: float, instance: str | None, *, silent: bool) -> list[float] | None:
        """For each target, or the one that is named, when its second scrape after a time was; None if one has none.

        Without `silent`, only scrapes that were answered count, and of all targets only those that answer.
        """
        up = self.query(f'up{{instance="{instance}"}}[10m]' if instance else "up[10m]")
        after = [[(at, answered == "1") for at, answered in one["values"] if at > since] for one in up]
        answering = [found for found in after if silent or instance or not found or any(told for _, told in found)]
        times = [[at for at, told in found if silent or told] for found in answering]
        return [found[1] for found in times] if times and all(len(found) > 1 for found in times) else None

    def _get(self, what: str, parameters: Mapping[str, Any]) -> Any:
        reply = requests.get(f"{self._address}/api/v1/{what}", params=dict(parameters), timeout=60)
        document: Any = reply.json()
        assert document["status"] == "success", document
        return document["data"]


def wait(reached: Any, what: str, instead: Any = lambda: "") -> Any:
    """Wait for something that is true at last, and return it."""
    until = time.monotonic() + _PATIENCE
    while not (found := reached()):
        assert time.monotonic() < until, f"not seen: {what}; but: {instead()}"
        time.sleep(0.2)
    return found


@contextmanager
def watching(folder: Path, targets: list[int], front: int, authority: Path) -> Iterator[Watch]:
    """Prometheus, with our file, its own targets, and a scrape each second."""
    text = (DEPLOY / "prometheus" / "prometheus.yml").read_text().replace("15s", f"{INTERVAL:.0f}s")
    first, second, third = "127.0.0.1:8790", "          - 127.0.0.1:8791\n", "          - 127.0.0.1:8792\n"
    text = text.replace(second, "").replace(third, "".join(f"          - 127.0.0.1:{port}\n" for port in targets[1:]))
    text = text.replace(first, f"127.0.0.1:{targets[0]}").replace("snapshots.example.org", f"127.0.0.1:{front}")
    text = text.replace("    scheme: https\n", f"    scheme: https\n    tls_config:\n      ca_file: {authority}\n")
    (folder / "prometheus.yml").write_text(text)
    (folder / "stillframe.rules.yml").write_text(scaled_rules())
    port = free_port()
    command = [
        *("prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--web.listen-address=127.0.0.1:{port}"),
        f"--storage.tsdb.path={folder / 'series'}",
    ]
    with serving(command, f"http://127.0.0.1:{port}/-/ready", folder / "prometheus.log", {}):
        yield Watch(f"http://127.0.0.1:{port}")
