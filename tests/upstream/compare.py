"""Run Rucio's own server tests without and with our hooks, policy package and plugin; compare every outcome.

    python tests/upstream/compare.py RUCIO_SOURCE [-k EXPRESSION]

RUCIO_SOURCE is a checkout of Rucio near the installed release. Exit code 0: not one outcome changed, and the outbox
alone reconstructs `replicas`.
"""

from __future__ import annotations

import argparse
import configparser
import shutil
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ET  # of a report we made ourselves
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from rucio_trace_sandbox.embedded import bootstrap, detach
from rucio_trace_sandbox.home import RucioHome, claim_process
from rucio_trace_sandbox.postgres import PostgresCluster
from rucio_trace_sandbox.rest import gunicorn
from rucio_trace_sandbox.workspace import workspace

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg

HERE = Path(__file__).parent
FRAGMENT = HERE.parents[1] / "etc" / "rucio.cfg.fragment"

# What upstream's own configuration for its tests says, as far as these tests look at it.
COMMON: dict[str, dict[str, object]] = {
    "accounts": {"special_accounts": "panda, tier0"},
    "conveyor": {"scheme": "root,davs,http,https,mock,file,magnet", "transfertool": "fts3"},
    "transmogrifier": {"maxdids": "100000"},
    "bootstrap": {"x509_identity": "CN=Rucio User", "gss_identity": "rucio-dev@CERN.CH"},
}


def main() -> int:
    arguments = _arguments()
    files = tomllib.loads((HERE / "files.toml").read_text())["files"]
    outcomes: dict[str, dict[str, str]] = {}
    with workspace() as folder, PostgresCluster.start(folder / "pg") as cluster:
        for mode, sections in (("without", {}), ("with", ours())):
            print(f"== Rucio's server tests {mode} us", flush=True)
            run = Run(folder / mode, cluster, arguments.source, sections)
            outcomes[mode] = run.outcomes(files, arguments.k)
            print(f"   {dict(Counter(outcomes[mode].values()))}", flush=True)
            for name, outcome in outcomes[mode].items():
                if outcome in ("failure", "error"):
                    print(f"   {outcome} {name}")
        unfaithful = run.replay()
    return report(outcomes["without"], outcomes["with"], unfaithful)


def ours() -> dict[str, dict[str, object]]:
    """The policy package and the metadata plugins as an operator configures them."""
    fragment = configparser.ConfigParser(interpolation=None)
    fragment.read_string(FRAGMENT.read_text())
    return {name: dict(fragment[name]) for name in fragment.sections()}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path, help="a checkout of Rucio")
    parser.add_argument("-k", help="only the tests that match, as pytest understands it")
    return parser.parse_args()


class Run:
    """One Rucio, freshly made, on which upstream's tests run."""

    def __init__(
        self, folder: Path, cluster: PostgresCluster, source: Path, sections: Mapping[str, Mapping[str, object]]
    ) -> None:
        self.folder, self.cluster, self.sections = folder, cluster, sections
        self.database = cluster.create()
        self.source = folder / "source"
        for part in ("tests", "tools", "etc"):  # not lib: the wheel is what is tested
            shutil.copytree(source / part, self.source / part)
        self.home = RucioHome.server(folder / "home", cluster.url(self.database), COMMON)
        self.home.configure({"common": {"mailtemplatedir": self.source / "etc" / "mail_templates"}})
        claim_process(self.home)

    def outcomes(self, files: list[str], expression: str | None) -> dict[str, str]:
        """Each test's outcome by its name."""
        bootstrap(self.home)
        detach()
        self.home.configure(self.sections)
        if self.sections:
            self._check(self.home.run("rucio-trace", "hooks", "install"))
        with gunicorn(self.home, self.folder / "rest") as server:
            self.home.configure({"client": {"rucio_host": server.url, "auth_host": server.url}})
            for tool in ("bootstrap_tests.py", "sync_rses.py", "sync_meta.py"):
                self._python(f"tools/{tool}")
            self._pytest([f"tests/{name}" for name in files], expression)
        return _read_junit(self.folder / "junit.xml")

    def _pytest(self, paths: list[str], expression: str | None) -> None:
        argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *paths]
        argv += [f"--junitxml={self.folder / 'junit.xml'}", "-k", expression or ""]
        with (self.folder / "pytest.log").open("w") as log:
            done = subprocess.run(
                argv, cwd=self.source, env=self._environment(), stdout=log, stderr=subprocess.STDOUT, check=False
            )
        if done.returncode not in (0, 1):  # 1: some tests failed, which the comparison judges
            raise SystemExit(
                f"pytest ended with {done.returncode}:\n{(self.folder / 'pytest.log').read_text()[-3000:]}"
            )

    def _python(self, *argv: str) -> None:
        self._check(
            subprocess.run(
                [sys.executable, *argv],
                cwd=self.source,
                env=self._environment(),
                capture_output=True,
                text=True,
                check=False,
            )
        )

    def _environment(self) -> dict[str, str]:
        return self.home.environment(PYTHONPATH=str(self.source), SUITE="remote_dbs")

    @staticmethod
    def _check(done: subprocess.CompletedProcess[str]) -> None:
        if done.returncode:
            raise SystemExit(f"{done.args} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")

    def replay(self) -> list[str]:
        """Follow every replica through the outbox; say where it contradicts itself or the table as it is now."""
        with self.cluster.connect(self.database) as connection:
            return replay(connection)


def replay(connection: psycopg.Connection) -> list[str]:
    """Contradictions between the outbox, row by row, and `replicas`."""
    states: dict[tuple[str, str, str], str | None] = {}
    faults, changes = [], Counter[str]()
    rows = connection.execute(
        "SELECT scope, name, rse_id, old_state, new_state FROM traceability.outbox WHERE rse_id IS NOT NULL ORDER BY id"
    ).fetchall()
    for scope, name, rse_id, old_state, new_state in rows:
        replica = (scope, name, rse_id)
        if states.get(replica) != old_state:
            faults.append(f"{replica}: {old_state}->{new_state} follows {states.get(replica)}")
        states[replica] = new_state
        changes[f"{old_state or '-'}>{new_state or '-'}"] += 1
    now = {
        (scope, name, rse_id): state
        for scope, name, rse_id, state in connection.execute(
            "SELECT scope, name, replace(rse_id::text, '-', ''), state::text FROM replicas"
        )
    }
    faults += [
        f"{replica}: outbox says {states.get(replica)}, the table {now.get(replica)}"
        for replica in now.keys() | {replica for replica, state in states.items() if state}
        if now.get(replica) != states.get(replica)
    ]
    print(f"   {len(rows)} outbox rows: {dict(changes.most_common())}")
    return faults


def _read_junit(path: Path) -> dict[str, str]:
    outcomes = {}
    for case in ET.parse(path).iter("testcase"):  # noqa: S314 our own report
        kinds = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        outcomes[f"{case.get('classname')}::{case.get('name')}"] = kinds[0] if kinds else "passed"
    return outcomes


def report(without: dict[str, str], with_us: dict[str, str], unfaithful: list[str]) -> int:
    """Print every difference; the exit code."""
    changed = sorted(name for name in without.keys() | with_us.keys() if without.get(name) != with_us.get(name))
    for name in changed:
        print(f"CHANGED {name}: {without.get(name)} without us, {with_us.get(name)} with us")
    for fault in unfaithful:
        print(f"OUTBOX  {fault}")
    print(f"{len(without)} tests, {len(changed)} outcomes changed; {len(unfaithful)} contradictions in the outbox")
    return 1 if changed or unfaithful or not without else 0


if __name__ == "__main__":
    sys.exit(main())
