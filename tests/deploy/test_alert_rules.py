"""The alert rules that we hand out: Prometheus takes them, they say what they should, and each is explained."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, Final

import yaml  # type: ignore[import-untyped]

from tests.deploy.serving import DEPLOY

if TYPE_CHECKING:
    from pathlib import Path

RULES: Final = DEPLOY / "prometheus" / "stillframe.rules.yml"
PLAYED: Final = DEPLOY.parent / "tests" / "deploy" / "alerts.yml"


def alerts() -> dict[str, dict[str, str]]:
    """The annotations of each alert."""
    document = yaml.safe_load(RULES.read_text())
    return {rule["alert"]: rule["annotations"] for group in document["groups"] for rule in group["rules"]}


def promtool(*arguments: str) -> str:
    done = subprocess.run(
        ["promtool", *arguments], capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_takes_the_configuration_and_the_rules() -> None:
    assert "SUCCESS" in promtool("check", "config", str(DEPLOY / "prometheus" / "prometheus.yml"))


def test_each_alert_is_there_when_it_should_and_not_before(tmp_path: Path) -> None:
    played = tmp_path / "alerts.yml"
    played.write_text(PLAYED.read_text().replace("RULES", str(RULES)))
    promtool("test", "rules", str(played))


def test_each_alert_is_played_and_has_its_section() -> None:
    page = (DEPLOY.parent / "docs" / "how-to" / "answer-an-alert.md").read_text()
    for name, told in alerts().items():
        assert f"## {name}\n" in page
        assert told["runbook"] == f"docs/how-to/answer-an-alert.md#{name.lower()}"
        assert f"alertname: {name}" in PLAYED.read_text()
    assert set(re.findall(r"^## (\w+)$", page, re.MULTILINE)) == set(alerts())


def test_each_metric_of_a_rule_is_one_of_ours() -> None:
    reference = (DEPLOY.parent / "docs" / "reference" / "metrics.md").read_text()
    # Each counter has a gauge beside it that says since when it counts.
    reference += reference.replace("_total`", "_created`")
    for metric in set(re.findall(r"stillframe_\w+", RULES.read_text())):
        assert f"`{metric}`" in reference, metric
