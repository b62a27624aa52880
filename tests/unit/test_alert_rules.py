"""The alert rules: Prometheus's own tool reads them, and raises with them what it should."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

ETC = Path(__file__).parents[2] / "etc"
RULES = ETC / "prometheus" / "rucio-trace.rules.yml"
CASES = Path(__file__).parent / "prometheus" / "rucio-trace.test.yml"


def promtool(*argv: str | Path) -> None:
    done = subprocess.run(["promtool", *argv], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_rules() -> None:
    promtool("check", "rules", RULES)


def test_each_alert_is_raised_when_it_should_be_and_no_other() -> None:
    promtool("test", "rules", CASES)


def test_every_alert_has_a_case() -> None:
    alerts = {line.partition("alert:")[2].strip() for line in RULES.read_text().splitlines() if "- alert:" in line}
    assert alerts
    assert {alert for alert in alerts if alert not in CASES.read_text()} == set()


def test_prometheus_understands_every_panel_of_the_dashboard(tmp_path: Path) -> None:
    panels = json.loads((ETC / "grafana" / "rucio-trace.json").read_text())["panels"]
    asked = [target["expr"].replace("$__rate_interval", "1m") for panel in panels for target in panel["targets"]]
    assert len(asked) >= len(panels) > 0
    rules = [{"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(asked)]
    file = tmp_path / "panels.yml"  # JSON is YAML
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", file)
