"""The federation of the demo: two sites, four RSEs, one Rucio; all in one folder, started and stopped as a whole."""

from __future__ import annotations

import contextlib
import json
import logging
import shlex
import stat
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rucio_trace_sandbox.embedded import EmbeddedRucio, bootstrap, detach, sqlite_url
from rucio_trace_sandbox.fts import FtsStandIn
from rucio_trace_sandbox.home import RucioHome, claim_process
from rucio_trace_sandbox.pki import SandboxAuthority
from rucio_trace_sandbox.rest import Rest, gunicorn
from rucio_trace_sandbox.traces import trace_service
from rucio_trace_sandbox.xrootd import XRootD

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from rucio_trace_sandbox.storage import Rse

__all__ = ["INSTANCE", "SCOPE", "SITES", "Federation", "Place"]

INSTANCE = "demo"
SCOPE = "eo"
SITES = ("A", "B")
_XRD_PREFIX = "rucio"
_CONFIGURED = {
    "policy": {"package": "rucio_trace_policy"},
    # Ours alone: Rucio's own JSON plugin does not work on SQLite.
    "metadata": {"plugins": "rucio_trace_policy.metadata.TraceabilityDidMeta"},
}
_SETTINGS = """\
[instance]
name = {instance}

[store]
url = {store}

[trust]
federation = {federation}

[service]
tokens = "tokens.json"
"""
_RECORDER = """
[recorder]
site = {site}
rses = {rses}
key = {key}
certificate = {certificate}
# A real site would rather sign pseudonyms; here everybody may see who did what.
accounts = "keep"

[auditor]
rses = {rses}
declare = true
"""
_LOOK_AROUND = """\
#!/bin/sh
# Starts the servers of this demo and a shell (or the command given) in which `rucio`, `rucio-trace` and
# `rucio-trace-recorder` work on it. The servers stop when the shell ends.
exec {python} -m rucio_trace_sandbox.demo.look_around "$(cd "$(dirname "$0")" && pwd)" "$@"
"""


@dataclass(frozen=True)
class Place:
    """Where everything lies."""

    folder: Path

    @property
    def settings(self) -> Path:
        """What `rucio-trace` reads."""
        return self.folder / "rucio-trace.toml"

    def recorder_settings(self, site: str) -> Path:
        return self.folder / f"recorder-{site.lower()}.toml"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def store_url(self) -> str:
        return f"sqlite:///{self.folder / 'traces.db'}"

    @property
    def look_around(self) -> Path:
        return self.folder / "look-around"

    @property
    def rucio_url(self) -> str:
        return sqlite_url(self.folder / "rucio.db")

    def home(self) -> RucioHome:
        """Rucio's home, for the server, the daemons and the user alike; written (again) with what we configure."""
        return RucioHome.server(self.folder / "rucio", self.rucio_url, _CONFIGURED)


@dataclass
class Federation:
    """A running federation."""

    place: Place
    rucio: EmbeddedRucio
    rest: Rest
    traces: str
    """The URL of the trace service."""
    fts: FtsStandIn
    xrootd: Mapping[str, XRootD]
    rses: Mapping[str, Rse]

    def environment(self) -> dict[str, str]:
        """What a shell needs for `rucio` and `rucio-trace` to work on this federation."""
        return self.rucio.home.environment(RUCIO_TRACE_CONFIG=str(self.place.settings))

    def file(self, rse: str, name: str) -> Path:
        """Where a file of Rucio's lies on this machine."""
        return self.rucio.pfn_path(self.rses[rse], name)

    @classmethod
    @contextlib.contextmanager
    def build(cls, place: Place) -> Iterator[Federation]:
        """Make everything in an empty folder, and run it."""
        home = place.home()
        claim_process(home)
        _log_to(place.logs)
        _write_settings(place)
        _write_look_around(place)
        bootstrap(home, SCOPE)
        detach()
        with cls.run(place) as federation:
            yield federation

    @classmethod
    @contextlib.contextmanager
    def run(cls, place: Place) -> Iterator[Federation]:
        """Run what `build` made, perhaps on other ports than last time."""
        home = place.home()
        claim_process(home)
        _log_to(place.logs)
        ports = _Ports(place.folder / "ports.json")
        with contextlib.ExitStack() as stack:
            xrootd = {
                site: stack.enter_context(XRootD.start(place.folder / f"xrd-{site.lower()}", f"xrd-{site}", port))
                for site in SITES
                for port in [ports.get(f"xrd-{site}")]
            }
            fts = stack.enter_context(FtsStandIn.start())
            rest = stack.enter_context(gunicorn(home, place.logs / "rest", ports.get("rest")))
            traces = stack.enter_context(trace_service(place.settings, place.logs / "traces", ports.get("traces")))
            kept = {name: int(url.rpartition(":")[2]) for name, url in (("rest", rest.url), ("traces", traces))}
            ports.put(**kept, **{f"xrd-{site}": xrootd[site].port for site in SITES})
            home.configure({"client": {"rucio_host": rest.url, "auth_host": rest.url}})
            rucio = EmbeddedRucio(home, place.rucio_url, place.folder, SCOPE)
            stack.callback(detach)
            yield cls(place, rucio, rest, traces, fts, xrootd, _rses(rucio, xrootd, fts))


class _Ports:
    """The ports of the last run, asked for again so that nothing written down goes stale without need."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._ports: dict[str, int] = json.loads(file.read_text()) if file.exists() else {}

    def get(self, name: str) -> int | None:
        return self._ports.get(name)

    def put(self, **ports: int) -> None:
        self.file.write_text(json.dumps(ports))


def _rses(rucio: EmbeddedRucio, xrootd: Mapping[str, XRootD], fts: FtsStandIn) -> dict[str, Rse]:
    """The four RSEs, made or told the ports of this run."""
    known = rucio.rses()
    if known:
        for site, server in xrootd.items():
            name = f"XRD-{site}"
            rucio.move_protocol(known[name], server.port)
            known[name] = replace(known[name], folder=server.data / _XRD_PREFIX)
        for rse in known.values():
            rucio.set_attribute(rse, "fts", fts.url)
        return known
    made = {}
    for site, server in xrootd.items():
        folder = rucio.folder / f"posix-{site.lower()}"
        attributes = {"site": f"SITE-{site}", "fts": fts.url}
        made[f"POSIX-{site}"] = rucio.add_posix_rse(f"POSIX-{site}", folder, **attributes)
        made[f"XRD-{site}"] = rucio.add_xrootd_rse(f"XRD-{site}", server, _XRD_PREFIX, **attributes)
    for kind in ("POSIX", "XRD"):
        rucio.connect(*(made[f"{kind}-{site}"] for site in SITES))
    return made


def _write_settings(place: Place) -> None:
    authority = SandboxAuthority(place.folder / "federation")
    common = _SETTINGS.format(
        instance=json.dumps(INSTANCE),
        store=json.dumps(place.store_url),
        federation=json.dumps("federation/federation.toml"),
    )
    place.settings.write_text(common)
    for site in SITES:
        member = authority.admit(f"SITE-{site}", rses=[f"POSIX-{site}", f"XRD-{site}"], create=[SCOPE], revoke=[SCOPE])
        recorder = _RECORDER.format(
            site=json.dumps(f"SITE-{site}"),
            rses=json.dumps(f"site=SITE-{site}"),
            key=json.dumps(f"federation/{member.key.name}"),
            certificate=json.dumps(f"federation/{member.certificate.name}"),
        )
        place.recorder_settings(site).write_text(common + recorder)


def _write_look_around(place: Place) -> None:
    place.look_around.write_text(_LOOK_AROUND.format(python=shlex.quote(sys.executable)))
    place.look_around.chmod(place.look_around.stat().st_mode | stat.S_IXUSR)


def _log_to(folder: Path) -> None:
    """Let Rucio's daemons, which run in this process, talk to a file."""
    folder.mkdir(exist_ok=True)
    logging.basicConfig(
        filename=folder / "rucio-daemons.log",
        level=logging.WARNING,
        format="%(asctime)s %(name)s %(levelname)s %(message)s",
        force=True,
    )
