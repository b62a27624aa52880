"""A recorder on an embedded Rucio: its certificate, its settings, its store, and eyes on all it writes."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from rucio_trace_daemons.recorder.options import Options
from rucio_trace_daemons.recorder.service import Recorder
from rucio_trace_policy import hooks
from rucio_trace_policy.tables import tables
from sqlalchemy import select, update

from rucio_trace.config import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rucio_trace_sandbox.embedded import EmbeddedRucio
    from rucio_trace_sandbox.storage import Rse
    from sqlalchemy import Row

    from rucio_trace.store import Stored

SETTINGS = """\
[instance]
name = "test-rucio"
[store]
url = "{store}"
[trust]
anchors = ["ca.pem"]
[recorder]
site = "SITE-A"
key = "key.pem"
certificate = "certificate.pem"
accounts_key = "accounts.key"
lease_seconds = {lease}
"""


class Authority:
    """A certificate authority of one test; writes key and certificate of a recorder into its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test CA")])
        now = datetime.now(UTC)
        builder = self._builder(self._name, self._key.public_key(), now - timedelta(days=2), now + timedelta(days=2))
        usage = _usage(key_cert_sign=True, crl_sign=True)
        builder = builder.add_extension(x509.BasicConstraints(True, None), critical=True).add_extension(usage, True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), False)
        certificate = builder.sign(self._key, hashes.SHA256())
        (folder / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, *, begins: timedelta = -timedelta(days=1), ends: timedelta = timedelta(days=1)) -> None:
        """Write a new key and certificate, valid from *begins* to *ends* as seen from now."""
        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "recorder")])
        builder = self._builder(subject, key.public_key(), now + begins, now + ends)
        builder = builder.add_extension(x509.BasicConstraints(False, None), critical=True)
        builder = builder.add_extension(_usage(digital_signature=True), critical=True)
        uri = x509.UniformResourceIdentifier("https://a.example/recorder")
        builder = builder.add_extension(x509.SubjectAlternativeName([uri]), critical=False)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
        )
        certificate = builder.sign(self._key, hashes.SHA256())
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (self.folder / "key.pem").write_bytes(pem)
        (self.folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, begins: datetime, ends: datetime
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(ends)
        )


def _usage(**given: bool) -> x509.KeyUsage:
    names = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: given.get(name, False) for name in names})


class Kit:
    """A recorder that does one batch when told to."""

    def __init__(self, rucio: EmbeddedRucio, store_url: str | None = None, *, lease: int = 600) -> None:
        self.rucio, self.folder = rucio, rucio.folder / "recorder"
        self.folder.mkdir()
        hooks.install(rucio.engine)
        self.authority = Authority(self.folder)
        self.authority.issue()
        (self.folder / "accounts.key").write_text("a secret of this site")
        url = store_url or f"sqlite:///{self.folder}/store.db"
        self.settings = Settings.parse(SETTINGS.format(store=url, lease=lease), self.folder / "rucio-trace.toml")
        self.options = Options.of(self.settings)
        self.stop = threading.Event()
        self._open: list[Recorder] = []

    def recorder(self, **options: Any) -> Recorder:
        recorder = Recorder.open(self.settings, replace(self.options, **options), self.rucio.engine, self.stop)
        self._open.append(recorder)
        return recorder

    def run(self, seam: Callable[[str], None] = lambda _name: None, **options: Any) -> None:
        """Do batches until nothing is due."""
        worker = self.recorder(**options).worker(seam)
        while worker.step():
            pass

    def close(self) -> None:
        for recorder in self._open:
            recorder.close()

    @property
    def outbox(self) -> list[Row[Any]]:
        table = tables(self.rucio.backend).outbox
        with self.rucio.engine.connect() as connection:
            return list(connection.execute(select(table).order_by(table.c.id)))

    @property
    def outcomes(self) -> dict[str, int]:
        table = tables(self.rucio.backend).outcomes
        counts: dict[str, int] = {}
        with self.rucio.engine.connect() as connection:
            for row in connection.execute(select(table)):
                counts[row.reason] = counts.get(row.reason, 0) + row.count
        return counts

    def make_due(self, **columns: Any) -> None:
        """Let the time pass for which rows wait."""
        table = tables(self.rucio.backend).outbox
        with self.rucio.engine.begin() as connection:
            connection.execute(update(table).values(not_before=None, claimed_until=None, **columns))

    def age(self, by: timedelta) -> None:
        """Move all that waiting rows remember into the past."""
        table = tables(self.rucio.backend).outbox
        with self.rucio.engine.begin() as connection:
            for row in connection.execute(select(table)).all():
                moments = {name: getattr(row, name) - by for name in _MOMENTS if getattr(row, name) is not None}
                connection.execute(update(table).where(table.c.id == row.id).values(**moments))

    def traces(self, name: str | None = None) -> list[Stored]:
        """All traces in the store (of DIDs of that name), in the order of their positions."""
        found = self.recorder().store.since(0)
        return [stored for stored in found if name in (None, (stored.trace.statement.did or "").partition(":")[2])]

    def events(self, name: str | None = None) -> list[tuple[str, str | None]]:
        return [(str(s.trace.statement.event), s.trace.statement.rse) for s in self.traces(name)]

    def product(self, name: str) -> Row[Any] | None:
        table = tables(self.rucio.backend).products
        with self.rucio.engine.connect() as connection:
            return connection.execute(select(table).where(table.c.name == name)).one_or_none()

    def replicas(self, name: str) -> dict[str, str]:
        table = tables(self.rucio.backend).replicas
        with self.rucio.engine.connect() as connection:
            return {row.rse: row.state for row in connection.execute(select(table).where(table.c.name == name))}

    # ------------------------------------------------------------------------ what Rucio does

    def set_state(self, rse: Rse, name: str, state: str) -> None:
        from rucio.core.replica import update_replicas_states
        from rucio.db.sqla.constants import ReplicaState

        change = {"rse_id": rse.id, "scope": self.rucio.scope, "name": name, "state": ReplicaState(state)}
        with self.rucio.session() as session:
            update_replicas_states([change], session=session)

    def delete(self, rse: Rse, name: str) -> None:
        """What the reaper does in the database, and on disk."""
        from rucio.core.replica import delete_replicas

        with self.rucio.session() as session:
            delete_replicas(rse.id, [{"scope": self.rucio.scope, "name": name}], session=session)
        if rse.folder is not None:
            self.rucio.pfn_path(rse, name).unlink(missing_ok=True)

    def copy(self, source: Rse, destination: Rse, name: str, **request: Any) -> Path:
        """A finished transfer: the bytes, a request in the history, the replica from C to A."""
        import shutil
        import uuid

        from rucio.core.replica import add_replicas, get_replica
        from rucio.db.sqla.constants import ReplicaState, RequestState, RequestType
        from rucio.db.sqla.models import RequestHistory

        rucio = self.rucio
        with rucio.session() as session:
            known = get_replica(source.id, rucio.scope, name, session=session)
            file = {"scope": rucio.scope, "name": name, **{k: known[k] for k in ("bytes", "adler32", "md5")}}
            add_replicas(destination.id, [file | {"state": ReplicaState.COPYING}], rucio.root, session=session)
        path = rucio.pfn_path(destination, name)
        if destination.folder is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(rucio.pfn_path(source, name), path)
        with rucio.session() as session:
            values = {
                "id": uuid.uuid4().hex,
                "rule_id": uuid.uuid4().hex,
                "activity": "User Subscriptions",
                "account": rucio.root,
                "transfertool": "fts3",
                "state": RequestState.DONE,
                "request_type": RequestType.TRANSFER,
                "source_rse_id": source.id,
                **{k: known[k] for k in ("bytes", "adler32", "md5")},
                **request,
            }
            session.add(RequestHistory(scope=rucio.scope, name=name, dest_rse_id=destination.id, **values))
        self.set_state(destination, name, "A")
        return path


_MOMENTS = ("at", "not_before", "missing_since", "claimed_until")
