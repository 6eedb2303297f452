"""Rules, dashboards and the files around them, as far as they can be judged without anything running."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
RULES = sorted((ROOT / "k8s/alerts").glob("*.yaml"))
TESTS = sorted((ROOT / "k8s/alerts/tests").glob("*.yaml"))
RUNBOOKS = ROOT / "docs/runbooks"


def alerts() -> list[dict[str, Any]]:
    files = [yaml.safe_load(path.read_text()) for path in RULES]
    return [rule for file in files for group in file["groups"] for rule in group["rules"] if "alert" in rule]


def tool(name: str, *arguments: str | Path) -> str:
    """What the tool says; skipped where it is not installed."""
    binary = shutil.which(name)
    if binary is None:
        pytest.skip(f"{name} is not installed. Debian: apt-get install prometheus prometheus-alertmanager")
    done = subprocess.run([binary, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_alert_has_a_runbook_and_a_test_and_no_page_is_left_over() -> None:
    named = {alert["alert"] for alert in alerts()}
    tested = {
        each["alertname"]
        for path in TESTS
        for test in yaml.safe_load(path.read_text())["tests"]
        for each in test.get("alert_rule_test", [])
        if each["exp_alerts"]
    }
    assert tested == named
    pages = {Path(alert["annotations"]["runbook_url"]) for alert in alerts()}
    assert {ROOT / page for page in pages} == set(RUNBOOKS.glob("*.md")) - {RUNBOOKS / "index.md"}
    for alert in alerts():
        text = (ROOT / alert["annotations"]["runbook_url"]).read_text()
        assert alert["alert"] in text, f"{alert['annotations']['runbook_url']} does not name {alert['alert']}"


def test_runbooks_and_dashboards_name_only_metrics_that_exist() -> None:
    source = [*(ROOT / "services").rglob("*.py"), *(ROOT / "trainer").rglob("*.py")]
    made = set(re.findall(r'"(bioverify_[a-z_]+)",\s*"', "\n".join(path.read_text() for path in source)))
    shown = [*RUNBOOKS.glob("*.md"), *(ROOT / "k8s/dashboards").glob("*.json"), *RULES, ROOT / "docs/observability.md"]
    for path in shown:
        for name in re.findall(r"\bbioverify_[a-z_]+", path.read_text()):
            # One that ends with "_" is the beginning of several, in a pattern for grep.
            shown_names = {name, re.sub("_(total|bucket|sum|count)$", "", name)}
            assert shown_names & made or (name[-1] == "_" and any(one.startswith(name) for one in made)), (path, name)


def test_dashboards_are_what_their_script_writes() -> None:
    pytest.importorskip("grafana_foundation_sdk")
    subprocess.run([sys.executable, ROOT / "k8s/dashboards/write.py", "--check"], check=True)


@pytest.mark.observability
def test_promtool_finds_the_rules_right_and_their_tests_pass() -> None:
    tool("promtool", "check", "rules", *RULES)
    tool("promtool", "test", "rules", *TESTS)


@pytest.mark.observability
def test_prometheus_and_alertmanager_take_their_configuration() -> None:
    tool("promtool", "check", "config", "--syntax-only", ROOT / "observability/prometheus.yml")
    tool("amtool", "check-config", ROOT / "observability/alertmanager.yml")


@pytest.mark.observability
@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        ({"alertname": "BioverifyVerifierDown", "severity": "page"}, "pages"),
        ({"alertname": "BioverifyCacheDown", "severity": "ticket"}, "tickets"),
    ],
)
def test_pages_wake_somebody_and_tickets_do_not(labels: dict[str, str], receiver: str) -> None:
    configuration = f"--config.file={ROOT / 'observability/alertmanager.yml'}"
    said = tool("amtool", "config", "routes", "test", configuration, *(f"{k}={v}" for k, v in labels.items()))
    assert said.split() == [receiver]
