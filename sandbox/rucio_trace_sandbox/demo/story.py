"""What happens in the demo, and what must hold after each step.

Every word here that tells an outcome is checked first: see `Narrator.hold`.
"""

from __future__ import annotations

import filecmp
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rucio_trace.store import Store
from rucio_trace_sandbox import daemons
from rucio_trace_sandbox.sentinel import make_product

from .federation import SCOPE, SITES
from .naming import did_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from rucio_trace.store import Stored

    from .commands import Done
    from .federation import Federation
    from .narrator import Narrator

__all__ = ["STEPS", "Story"]

_SMALL_SHARE = 0.1
_FINISHER_SECONDS = 1.1


@dataclass
class Product:
    """A file of the user, and what became of it in Rucio."""

    path: Path
    name: str
    rules: dict[str, str] = field(default_factory=dict)

    @property
    def did(self) -> str:
        return f"{SCOPE}:{self.name}"

    @property
    def size(self) -> int:
        return self.path.stat().st_size


class Story:
    """The demo from its second step on, in a federation that runs."""

    def __init__(self, federation: Federation, narrator: Narrator, product: Path | None, megabytes: float) -> None:
        self.federation, self.narrator = federation, narrator
        self.folder, self.environment = federation.place.folder, federation.environment()
        self._given, self._megabytes = product, megabytes
        self.large: Product
        self.small: Product

    # The steps, in the order of STEPS.

    def begin(self) -> None:
        """Say what runs."""
        tell, federation = self.narrator.tell, self.federation
        tell(f"Rucio's REST server answers at {federation.rest.url}, its database is SQLite; policy package and")
        tell("metadata plugin of rucio-trace are configured in rucio.cfg. A trace service answers at")
        tell(f"{federation.traces}, for those who have no access to the store. XRootD servers, for this machine alone:")
        for site, server in federation.xrootd.items():
            tell(f"  XRD-{site} at {server.url}, POSIX-{site} in the folder posix-{site.lower()}")
        tell("Two sites, each with a recorder and a key, certified by a throw-away CA; federation/federation.toml says")
        tell("that each may speak for its own two RSEs only.")
        removal = self._trace("hooks", "install")
        (self.folder / "remove-hooks.sql").write_text(removal.output)
        done = self._trace("hooks", "status")
        self.narrator.show(done.output)
        self.narrator.hold("the hooks are in Rucio's database", "in place" in done.output)

    def upload(self) -> None:
        """Two products come into Rucio."""
        folder = self.folder / "products"
        folder.mkdir()
        with self.narrator.doing("making products that look like Sentinel-2's"):
            path = self._given or make_product(folder, self._megabytes, seed=1, unit="A")
            other = make_product(folder, self._megabytes * _SMALL_SHARE, seed=2, unit="B")
        self.large, self.small = (Product(file, did_name(file.name)) for file in (path, other))
        for product, rse in ((self.large, "XRD-A"), (self.small, "POSIX-A")):
            named = [] if product.name == product.path.name else ["--lfn", product.name]
            argv = ["upload", "--rse", rse, "--scope", SCOPE, *named]
            self._rucio(*argv, product.path, watch=self._file(rse, product), size=product.size)
            states = self.federation.rucio.replica_states(product.did)
            self.narrator.hold(f"Rucio has {_short(product.name)} on {rse}", states == {rse: "A"}, states)

    def replicate(self) -> None:
        """Rules ask for copies; Rucio's conveyor makes them."""
        for product, rse in ((self.large, "XRD-B"), (self.small, "POSIX-B")):
            done = self._rucio("rule", "add", "--copies", "1", "--rses", rse, product.did)
            product.rules[rse] = done.output.split()[-1]
        self.narrator.tell(
            "Rucio's judge made transfer requests of the rules. Its submitter hands them to a stand-in for"
        )
        self.narrator.tell("FTS3's REST interface: XRootD third-party copy for one, a plain copy for the other.")
        federation = self.federation
        with self.narrator.doing("copying", self._file("XRD-B", self.large), self.large.size):
            daemons.evaluate()
            daemons.submit()
            federation.fts.wait()
        with self.narrator.doing("Rucio's poller and finisher"):
            daemons.poll()
            time.sleep(_FINISHER_SECONDS)
            daemons.finish()
        for product, source, copy in ((self.large, "XRD-A", "XRD-B"), (self.small, "POSIX-A", "POSIX-B")):
            states = federation.rucio.replica_states(product.did)
            self.narrator.hold(
                f"{copy} has {_short(product.name)}, says Rucio", states == {source: "A", copy: "A"}, states
            )
            same = _equal(self._file(copy, product), product.path)
            self.narrator.hold(f"the file on {copy} has the bytes of the original", same)

    def record(self) -> None:
        """The recorders read what arrived, and sign."""
        self._record()
        for product, copy in ((self.large, "XRD-B"), (self.small, "POSIX-B")):
            events = self._events(product)
            wanted = [("CREATE", copy.replace("-B", "-A"), "SITE-A"), ("COPY", copy, "SITE-B")]
            self.narrator.hold(
                f"a CREATE by SITE-A and a COPY by SITE-B of {_short(product.name)}", events == wanted, events
            )
        done = self._rucio("did", "metadata", "list", "--plugin", "ALL", self.large.did)
        self.narrator.show(_lines_with(done.output, "trace_", "bytes", "adler32", "account", "did_type"))
        shown = _table(done.output)
        self.narrator.hold("Rucio shows trace_status: GENUINE", shown.get("trace_status") == "GENUINE", shown)
        self.narrator.hold("two of two replicas are proven", shown.get("trace_replicas") == "2/2", shown)
        self.narrator.hold("beside Rucio's own keys", shown.get("bytes") == str(self.large.size), shown)

    def verify(self) -> None:
        """A file in hand is genuine, or it is not."""
        folder = self.folder / "download"
        file = folder / SCOPE / self.large.name
        self._rucio("download", "--dir", folder, self.large.did, watch=file, size=self.large.size)
        done = self._trace("verify", file)
        self.narrator.show(done.output + done.talk)
        self.narrator.hold("rucio-trace verify says GENUINE and exits 0", "GENUINE" in done.output)
        self.narrator.tell("Somebody elsewhere, who has no access to the store, asks the trace service for evidence")
        self.narrator.tell("and judges by the members whom the federation file names:")
        done = self._trace("--service", self.federation.traces, "verify", file)
        self.narrator.show(done.output + done.talk)
        self.narrator.hold("the verdict through the trace service is GENUINE too", "GENUINE" in done.output)
        self.narrator.tell("Now one bit of one byte in the middle of the file:")
        flip(file)
        done = self._trace("verify", file, status=1)
        self.narrator.show(done.output + done.talk)
        self.narrator.hold("it says TAMPERED, and exits 1", "TAMPERED" in done.output)
        genuine = self._stored(self.large)[0].trace.statement.hash
        self.narrator.hold("it names the digest that differs", genuine in done.output + done.talk)
        self._history(self.large)

    def delete(self) -> None:
        """A copy is removed through Rucio."""
        rule = self.large.rules["XRD-B"]
        self._rucio("rule", "remove", rule)
        self.narrator.tell("Rucio keeps a removed rule for an hour, in case it was a slip; its owner can shorten that:")
        self._rucio("rule", "update", "--lifetime", "0", rule)
        with self.narrator.doing("Rucio's judge cleans up and its reaper deletes"):
            daemons.clean()
            daemons.reap("XRD-B")
        states = self.federation.rucio.replica_states(self.large.did)
        self.narrator.hold("the replica on XRD-B is gone from Rucio", states == {"XRD-A": "A"}, states)
        self.narrator.hold("and from the storage", not self._file("XRD-B", self.large).exists())
        self._record("B")
        last = self._stored(self.large)[-1].trace.statement
        cause = last.cause
        self.narrator.hold("the last trace is a DELETE on XRD-B", (last.event, last.rse) == ("DELETE", "XRD-B"), last)
        self.narrator.hold("it says who: root", cause is not None and cause.account == "root", cause)
        self.narrator.hold(f"and by which rule: {rule}", cause is not None and cause.rule == rule, cause)
        self._history(self.large)

    def rot(self) -> None:
        """A file rots on disk, and the auditor notices."""
        file = self._file("POSIX-B", self.small)
        before = file.stat()
        self.narrator.tell(f"Behind everybody's back one bit changes in {file.relative_to(self.folder)}:")
        flip(file)
        same = file.stat()
        unchanged = (before.st_size, before.st_mtime_ns) == (same.st_size, same.st_mtime_ns)
        self.narrator.hold("size and time of the file are as before", unchanged)
        self.narrator.tell("A campaign has every copy on three RSEs read again, once a day:")
        self._trace("audit", "start", "--rses", "POSIX-A|POSIX-B|XRD-A", "--every", "1d")
        self._audit()
        batches = [(s.event, s.rse) for s in (stored.trace.statement for stored in self._batches())]
        wanted = [("VERIFY", rse) for rse in ("POSIX-A", "XRD-A")]
        self.narrator.hold("SITE-A signed one VERIFY for each of its RSEs", sorted(batches) == wanted, batches)
        self.narrator.tell("On POSIX-B the auditor found other bytes: that is a doubt. The recorder looks for itself:")
        self._record("B")
        last = self._stored(self.small)[-1].trace.statement
        self.narrator.hold(
            "the last trace is a CORRUPT on POSIX-B", (last.event, last.rse) == ("CORRUPT", "POSIX-B"), last
        )
        found = last.found
        self.narrator.hold(
            "it holds what was found beside what should be there",
            found is not None and last.hash not in found.hashes.values() and found.size == last.size,
            found,
        )
        self._status("DEGRADED", "1/2")
        alarms = self._alarms()
        self.narrator.hold(
            "one alarm stands among Rucio's messages, for Hermes", alarms == [("CORRUPT", "POSIX-B", 1)], alarms
        )

    def heal(self) -> None:
        """Rucio replaces the bad copy by a fresh one."""
        self.narrator.tell("Another copy is good, so SITE-B's auditor may declare this one bad in Rucio; its settings")
        self.narrator.tell("allow that (declare = true), else it would only say what it would do.")
        self._audit("B")
        states = self.federation.rucio.replica_states(self.small.did)
        self.narrator.hold("Rucio calls the replica bad", states == {"POSIX-A": "A", "POSIX-B": "D"}, states)
        with self.narrator.doing("Rucio's necromancer asks for a new copy, its conveyor makes it"):
            daemons.recover()
            daemons.move(self.federation.fts)
        self._record("B")
        corrupt, copy = (stored.trace for stored in self._stored(self.small)[-2:])
        s = copy.statement
        self.narrator.hold("the last trace is a COPY on POSIX-B", (s.event, s.rse) == ("COPY", "POSIX-B"), s)
        self.narrator.hold("it names the CORRUPT that it replaces", s.replaces == corrupt.id, s)
        source = s.source.rse if s.source else None
        self.narrator.hold("and where it came from: POSIX-A", source == "POSIX-A", s)
        self._status("GENUINE", "2/2")
        self._history(self.small)

    # What the steps are made of.

    def _rucio(self, *argv: str | Path, watch: Path | None = None, size: int | None = None) -> Done:
        return self._run("rucio", *argv, watch=watch, size=size)

    def _trace(self, *argv: str | Path, status: int = 0) -> Done:
        return self._run("rucio-trace", *argv, status=status)

    def _run(self, *argv: str | Path, **options: Any) -> Done:
        """Run a command in the demo's folder, so that its paths are short to read."""
        words = [
            str(word.relative_to(self.folder) if isinstance(word, Path) and word.is_relative_to(self.folder) else word)
            for word in argv
        ]
        return self.narrator.run(words, self.environment, self.folder, **options)

    def _record(self, *sites: str) -> None:
        for site in sites or SITES:
            settings = self.federation.place.recorder_settings(site)
            self._run("rucio-trace-recorder", "--run-once", "--config", settings)

    def _audit(self, *sites: str) -> None:
        for site in sites or SITES:
            settings = self.federation.place.recorder_settings(site)
            self._run("rucio-trace-auditor", "--run-once", "--config", settings)

    def _status(self, status: str, replicas: str) -> None:
        done = self._rucio("did", "metadata", "list", "--plugin", "ALL", self.small.did)
        self.narrator.show(_lines_with(done.output, "trace_status", "trace_replicas"))
        shown = _table(done.output)
        found = (shown.get("trace_status"), shown.get("trace_replicas"))
        self.narrator.hold(f"the product is {status}, {replicas} copies proven", found == (status, replicas), shown)

    def _alarms(self) -> list[tuple[str, str, int]]:
        from rucio.core.message import retrieve_messages

        with self.federation.rucio.session() as session:
            found = [m["payload"] for m in retrieve_messages(event_type="traceability-alarm", session=session)]
        return [(payload["kind"], payload["subject"], payload["count"]) for payload in found]

    def _batches(self) -> list[Stored]:
        with Store.open(self.federation.place.store_url) as store:
            return [stored for stored in store.since(0) if stored.trace.statement.batch is not None]

    def _history(self, product: Product) -> None:
        done = self._trace("history", product.did)
        self.narrator.show(done.output, style="")

    def _file(self, rse: str, product: Product) -> Path:
        return self.federation.file(rse, product.name)

    def _stored(self, product: Product) -> list[Stored]:
        with Store.open(self.federation.place.store_url) as store:
            return store.by_did(SCOPE, product.name)

    def _events(self, product: Product) -> list[tuple[str, str | None, str | None]]:
        statements = [stored.trace.statement for stored in self._stored(product)]
        return [(str(statement.event), statement.rse, statement.site) for statement in statements]


def _short(name: str) -> str:
    return name if len(name) <= 28 else f"{name[:18]}…{name[-9:]}"


def _table(output: str) -> dict[str, str]:
    """Keys and values of what `rucio did metadata list` prints."""
    rows = (line.partition(":") for line in output.splitlines())
    return {key.strip(): value.strip() for key, _, value in rows}


def _lines_with(output: str, *keys: str) -> str:
    return "\n".join(line for line in output.splitlines() if line.startswith(keys))


def _equal(first: Path, second: Path) -> bool:
    return filecmp.cmp(first, second, shallow=False)


STEPS: list[tuple[str, Callable[[Story], None]]] = [
    ("A federation of two sites", Story.begin),
    ("Two products are uploaded", Story.upload),
    ("Rules ask for copies at the other site", Story.replicate),
    ("The recorders sign what they see", Story.record),
    ("Genuine or tampered", Story.verify),
    ("A copy is deleted", Story.delete),
    ("A copy rots, and the auditor notices", Story.rot),
    ("Rucio heals it", Story.heal),
]


def flip(file: Path) -> None:
    """Change one bit in the middle of *file*, and nothing that a look at its size and times would show."""
    before = file.stat()
    with file.open("r+b") as content:
        content.seek(before.st_size // 2)
        byte = content.read(1)[0]
        content.seek(before.st_size // 2)
        content.write(bytes([byte ^ 1]))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
