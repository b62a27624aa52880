"""What Prometheus is told, scraped over HTTP from a real recorder, and what dashboard and rules ask for."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families
from recorder_kit import Kit
from rucio_trace_daemons.alarms import Alarms, Kind
from rucio_trace_daemons.monitoring import served
from rucio_trace_daemons.recorder.outbox import STOPPED
from rucio_trace_daemons.rses import Rses
from rucio_trace_policy import hooks
from rucio_trace_policy.tables import tables
from rucio_trace_sandbox.processes import free_port, wait_until
from sqlalchemy import create_engine, func, select, update

from rucio_trace.config import Metrics
from rucio_trace.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rucio_trace_sandbox.embedded import EmbeddedRucio

RECORDER = Path(sys.executable).with_name("rucio-trace-recorder")
ROOT = Path(__file__).parents[2]
OURS = re.compile(r"\btraceability_\w+")

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def kit(rucio_postgresql: EmbeddedRucio) -> Iterator[Kit]:
    kit = Kit(rucio_postgresql)
    yield kit
    kit.close()


def scrape(port: int) -> tuple[set[str], Samples]:
    """The names of all metrics, those without samples too, and the samples."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    samples = {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}
    counters = {f"{family.name}_total" for family in families if family.type == "counter"}
    return {family.name for family in families} | counters | {name for name, _ in samples}, samples


def value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, frozenset(labels.items())))


def asked_for() -> set[str]:
    """Every metric of the daemons that the dashboard and the rules name; the trace service's are tested with it."""
    dashboard = json.loads((ROOT / "etc/grafana/rucio-trace.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    rules = (ROOT / "etc/prometheus/rucio-trace.rules.yml").read_text()
    named = set(OURS.findall("\n".join([*expressions, rules])))
    return {name for name in named if not name.startswith(("traceability_service_", "traceability_store_"))}


def test_a_recorder_tells_what_it_read_found_and_left_and_all_that_dashboard_and_rules_ask_for(kit: Kit) -> None:
    rucio, port, rucios_port = kit.rucio, free_port(), free_port()
    rucio.home.configure({"monitor": {"enable_metrics": "True", "metrics_port": rucios_port}})
    here = rucio.add_posix_rse("HERE")
    with rucio.engine.begin() as connection:
        breaker = {"rse_id": here.id, "bad_in_a_row": 3, "opened_at": None, "reason": None}
        connection.execute(tables(rucio.backend).breakers.insert().values(breaker))
    rucio.upload(here, "good", b"content")
    rucio.upload(here, "bad", b"content").path.write_bytes(b"another")
    rucio.upload(here, "missing", b"content").path.unlink()
    argv = [RECORDER, "--config", kit.file, "--sleep-time", "2", "--metrics-port", str(port)]
    process = subprocess.Popen(argv, env=rucio.home.environment(), stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: len(kit.outbox) == 1 and kit.outbox[0].not_before is not None, "the recorder's batch", 120)
        wait_until(lambda: _answers(port), "its metrics")
        names, samples = scrape(port)
        through_rucio, _ = scrape(rucios_port)
    finally:
        process.terminate()
        assert process.wait(30) == 0
    assert asked_for() <= names
    assert asked_for() <= through_rucio
    assert value(samples, "traceability_read_bytes_total", rse="HERE") == 3 * 7  # what differs is read twice
    assert value(samples, "traceability_readings_total", rse="HERE", method="read", result="ok") == 3
    assert value(samples, "traceability_readings_total", rse="HERE", method="read", result="NotFound") == 1
    assert value(samples, "traceability_outcomes_total", rse="HERE", outcome="CREATE") == 1
    assert value(samples, "traceability_outcomes_total", rse="HERE", outcome="CORRUPT") == 1
    assert value(samples, "traceability_breaker_open", rse="HERE") == 0
    assert value(samples, "traceability_database_up") == 1
    assert 0 < (value(samples, "traceability_certificate_days_left") or 0) < 10_000


def _answers(port: int) -> bool:
    """Whether what the tables say is young enough to hold the alarm; a look is good for some seconds."""
    try:
        _, samples = scrape(port)
    except OSError:
        return False
    states = {
        state: value(samples, "traceability_outbox_rows", rse="HERE", state=state) for state in ("due", "waiting")
    }
    alarm = value(samples, "traceability_alarm_reports", kind="CORRUPT", subject="HERE")
    return states == {"due": 0, "waiting": 1} and alarm == 1


@pytest.mark.parametrize("database", ["sqlite", "mariadb"])  # PostgreSQL: above
def test_the_shared_state_is_read_from_other_databases_too(request: pytest.FixtureRequest, database: str) -> None:
    rucio: EmbeddedRucio = request.getfixturevalue(f"rucio_{database}")
    hooks.install(rucio.engine)
    here = rucio.add_posix_rse("HERE")
    for name in ("one", "two"):
        rucio.upload(here, name, b"content")
    Alarms(rucio.engine).report(Kind.LOST, "HERE", {}, 3)
    outbox = tables(rucio.backend).outbox
    with rucio.engine.begin() as connection:
        first = connection.scalar(select(func.min(outbox.c.id)))
        connection.execute(update(outbox).where(outbox.c.id == first).values(not_before=STOPPED))
        oldest = connection.scalar(select(func.min(outbox.c.at)).where(outbox.c.id != first))

    with served(Metrics(), "a-daemon", rucio.engine, Rses(rucio.engine)):
        told = REGISTRY.get_sample_value
        assert told("traceability_outbox_rows", {"rse": "HERE", "state": "due"}) == 3
        assert told("traceability_outbox_rows", {"rse": "HERE", "state": "stopped"}) == 1
        assert told("traceability_outbox_oldest_timestamp_seconds", {"rse": "HERE"}) == oldest.timestamp()
        assert told("traceability_signing_stopped", {"rse": "HERE"}) == 0
        assert told("traceability_alarm_reports", {"kind": "LOST", "subject": "HERE"}) == 3


def test_a_database_that_is_away_is_told_and_ends_no_scrape(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/nowhere/rucio.db")
    port = free_port()
    with served(Metrics(port=port), "a-daemon", engine, Rses(engine)):
        names, samples = scrape(port)
    assert value(samples, "traceability_database_up") == 0
    assert "traceability_outbox_rows" not in names
    assert REGISTRY.get_sample_value("traceability_database_up") is None


def test_a_port_that_is_taken_is_an_error_that_names_the_option(tmp_path: Path) -> None:
    engine, port = create_engine("sqlite://"), free_port()
    with (
        served(Metrics(port=port), "a-daemon", engine, Rses(engine)),
        pytest.raises(ConfigurationError, match=r"metrics\.port.*Address already in use"),
        served(Metrics(port=port), "another", engine, Rses(engine)),
    ):
        pass
