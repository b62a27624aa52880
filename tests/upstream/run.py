"""Run Rucio's own server tests without us and with us, and compare every outcome.

    python tests/upstream/run.py CHECKOUT [--files test_replica.py …] [--report FILE.json]

CHECKOUT is a checkout of Rucio's repository at (or near) the installed version: its tests, its tools and its test
configuration are used, never its `lib`; what is tested is the installed Rucio. Each run gets a PostgreSQL database and
a REST server of its own. The second run has the hooks, the policy package and the metadata plugins of
`etc/rucio.cfg.fragment`; after it the outbox must tell the whole story of the table `replicas`.

Ends with 0 when no outcome differs and the outbox is complete, else with 1.
"""

from __future__ import annotations

import argparse
import collections
import configparser
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from rucio_trace_sandbox.home import RucioHome
from rucio_trace_sandbox.postgres import PostgresCluster
from rucio_trace_sandbox.rest import gunicorn
from rucio_trace_sandbox.workspace import workspace
from sqlalchemy import create_engine, select, text

FRAGMENT = Path(__file__).parents[2] / "etc" / "rucio.cfg.fragment"
# What a change of ours in the database, in permissions or in metadata could touch.
FILES = [
    *("test_replica.py", "test_bad_replica.py", "test_quarantined_replica.py", "test_dataset_replicas.py"),
    *("test_replica_recoverer.py", "test_archive.py", "test_did.py", "test_meta_did.py", "test_did_meta_plugins.py"),
    *("test_filter_engine.py", "test_rule.py", "test_judge_cleaner.py", "test_judge_evaluator.py"),
    *("test_judge_injector.py", "test_judge_repairer.py", "test_reaper.py", "test_undertaker.py", "test_request.py"),
    *("test_transfer.py", "test_conveyor_submitter.py", "test_preparer.py", "test_throttler.py", "test_upload.py"),
    *("test_download.py", "test_impl_upload_download.py", "test_subscription.py", "test_heartbeat.py"),
    *("test_message.py", "test_permission.py", "test_policy_package.py", "test_account_limits.py", "test_lifetime.py"),
    *("test_abacus_account.py", "test_abacus_collection_replica.py", "test_abacus_rse.py", "test_counter.py"),
    *("test_scope.py", "test_rse.py", "test_bb8.py", "test_redirect.py", "test_opendata.py"),
]
_BOOTSTRAP = """
from rucio.db.sqla.util import build_database, create_base_vo, create_root_account
build_database(); create_base_vo(); create_root_account()
"""
_TOOLS = ("bootstrap_tests.py", "sync_rses.py", "sync_meta.py")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--files", nargs="*", default=FILES, help="test files below CHECKOUT/tests")
    parser.add_argument("--report", type=Path, help="write the outcomes as JSON, and pytest's output beside them")
    options = parser.parse_args()
    checkout = options.checkout.resolve()
    files = [name for name in options.files if (checkout / "tests" / name).exists()]
    if not files:
        parser.error(f"{checkout}: has none of the test files")
    with workspace() as folder, PostgresCluster.start(folder / "pg") as cluster:
        runs = {
            name: run(checkout, files, folder / name, cluster, ours=ours)
            for name, ours in (("without", False), ("with", True))
        }
    if options.report:
        for name, found in runs.items():
            options.report.with_suffix(f".{name}.log").write_text(found.pop("log"))
        options.report.write_text(json.dumps(runs, indent=1))
    return report(runs)


def run(checkout: Path, files: list[str], folder: Path, cluster: PostgresCluster, *, ours: bool) -> dict[str, Any]:
    """One run of the tests on a database of its own."""
    url = cluster.url(cluster.create(prefix="with" if ours else "without"))
    home = RucioHome.server(folder, url, sections(checkout, folder, ours=ours))
    home.run_python(_BOOTSTRAP)
    if ours:
        check(home.run(Path(sys.executable).with_name("rucio-trace"), "hooks", "install"))
    say(f"{folder.name}: {len(files)} test files")
    with gunicorn(home, folder / "rest") as rest:
        where = {"rucio_host": rest.url, "auth_host": rest.url}
        home.configure({"client": where})
        for tool in _TOOLS:
            check(home.run(sys.executable, checkout / "tools" / tool, PYTHONDONTWRITEBYTECODE="1"))
        started = time.monotonic()
        outcomes = run_tests(checkout, files, folder, home)
        seconds = time.monotonic() - started
    found: dict[str, Any] = {"outcomes": outcomes, "seconds": round(seconds), "log": (folder / "log").read_text()}
    if ours:
        found |= tell_outbox(url)
    return found


def sections(checkout: Path, folder: Path, *, ours: bool) -> dict[str, dict[str, object]]:
    """Upstream's test configuration, as far as it holds on a machine without its containers."""
    upstream = configparser.ConfigParser(interpolation=None)
    upstream.read(checkout / "etc" / "docker" / "test" / "extra" / "rucio_autotests_common.cfg")
    kept = (
        "conveyor",
        "accounts",
        "injector",
        "trace",
        "api",
        "opendata",
        "hermes",
        "messaging-hermes",
        "messaging-cache",
    )
    merged: dict[str, dict[str, object]] = {name: dict(upstream[name]) for name in kept if upstream.has_section(name)}
    (folder / "traces").mkdir(parents=True)
    changed: dict[str, dict[str, object]] = {
        "common": {"mailtemplatedir": checkout / "etc" / "mail_templates"},
        "injector": {"file": checkout / "tools" / "test.file.1000"},
        "trace": {"tracedir": folder / "traces"},
        "conveyor": {"cacert": "False", "usercert": None},
        "client": {"request_retries": 3},
    }
    fragment = configparser.ConfigParser(interpolation=None)
    if ours:
        fragment.read_string(FRAGMENT.read_text())
    for part in (changed, {name: dict(fragment[name]) for name in fragment.sections()}):
        for name, values in part.items():
            merged.setdefault(name, {}).update(values)
    return merged


def run_tests(checkout: Path, files: list[str], folder: Path, home: RucioHome) -> dict[str, str]:
    """The outcome of every test by its name."""
    results = folder / "results.xml"
    argv = [sys.executable, "-m", "pytest", "-c", checkout / "pyproject.toml", "--rootdir", checkout]
    argv += ["-o", f"pythonpath={checkout}", "-p", "no:cacheprovider", "-p", "no:xdist", "-q", "--tb=short"]
    argv += [f"--junitxml={results}", *(checkout / "tests" / name for name in files)]
    with (folder / "log").open("w") as log:
        environment = home.environment(PYTHONDONTWRITEBYTECODE="1")
        subprocess.run(argv, cwd=checkout, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False)
    if not results.exists():
        raise SystemExit(f"{folder.name}: pytest did not come to an end\n{(folder / 'log').read_text()[-3000:]}")
    cases = ET.parse(results).iter("testcase")  # noqa: S314 pytest's own file
    return {f"{case.get('classname')}::{case.get('name')}": outcome(case) for case in cases}


def outcome(case: ET.Element) -> str:
    """What became of a test, in pytest's words."""
    for kind in ("error", "failure", "skipped"):
        element = case.find(kind)
        if element is not None:
            return "xfailed" if element.get("type") == "pytest.xfail" else kind
    return "passed"


def tell_outbox(url: str) -> dict[str, Any]:
    """The histogram of changes, and whether they lead to what the table holds now."""
    from rucio_trace_policy.tables import tables

    engine = create_engine(url)
    outbox = tables("postgresql").outbox
    columns = (outbox.c.scope, outbox.c.name, outbox.c.rse_id, outbox.c.old_state, outbox.c.new_state)
    last: dict[tuple[str, ...], str | None] = {}
    gaps, changes = 0, collections.Counter[str]()
    with engine.connect() as connection:
        for scope, name, rse_id, old, new in connection.execute(select(*columns).order_by(outbox.c.id)):
            key = (scope, name, rse_id)
            gaps += old != last.get(key)
            last[key] = new
            changes[f"{old or '-'}>{new or '-'}"] += 1
        query = text("SELECT scope, name, replace(rse_id::text, '-', ''), state::text FROM replicas")
        table = {tuple(row[:3]): row[3] for row in connection.execute(query)}
    engine.dispose()
    differing = {key: state for key, state in last.items() if state} != table
    return {"changes": dict(changes.most_common()), "gaps": gaps, "outbox_differs_from_replicas": differing}


def report(runs: dict[str, dict[str, Any]]) -> int:
    """Print the comparison; the program's exit status."""
    without, ours = runs["without"]["outcomes"], runs["with"]["outcomes"]
    for name, found in runs.items():
        counts = collections.Counter(found["outcomes"].values())
        total = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
        print(f"{name:8} {len(found['outcomes'])} tests in {found['seconds']} s: {total}")
    differing = sorted(name for name in without.keys() | ours.keys() if without.get(name) != ours.get(name))
    for name in differing:
        print(f"DIFFERS  {name}: {without.get(name)} without us, {ours.get(name)} with us")
    told = runs["with"]
    print(f"outbox   {sum(told['changes'].values())} changes: {told['changes']}")
    print(f"outbox   {told['gaps']} gaps, the same as the table: {not told['outbox_differs_from_replicas']}")
    return int(bool(differing or told["gaps"] or told["outbox_differs_from_replicas"]))


def check(done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode:
        raise SystemExit(f"{done.args}: status {done.returncode}\n{done.stdout}{done.stderr}")


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
