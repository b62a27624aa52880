"""From what was found to the statement that says so (docs/format.md, section 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rucio.common.types import InternalAccount

from rucio_trace.accounts import pseudonym
from rucio_trace.errors import Undecided
from rucio_trace.products import attributes_of
from rucio_trace.trace import Cause, Event, Found, Service, Statement, base_name, format_time, new_salt
from rucio_trace_daemons.recorder.prove import MAIN_ALGORITHM, Expected

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from rucio_trace.dataset import Listing
    from rucio_trace.trace import ProductKey, Source
    from rucio_trace_daemons.recorder.options import Options
    from rucio_trace_daemons.recorder.prove import Reading
    from rucio_trace_daemons.recorder.resolve import Transfer
    from rucio_trace_daemons.recorder.rows import Row


__all__ = ["Cannot", "Composer", "Who"]


class Cannot(Undecided):
    """This row can end in no trace as things are; what an operator can do is in the hint."""


@dataclass(frozen=True, slots=True)
class Who:
    """Who or what asked for a change; accounts as Rucio keeps them."""

    account: str | None = None
    action: str | None = None
    rule: str | None = None


@dataclass(frozen=True, slots=True)
class Composer:
    """Writes the statements of one recorder."""

    options: Options

    def compose(
        self,
        row: Row,
        key: ProductKey,
        event: Event,
        *,
        rse: str,
        signer: str,
        origin: Statement | None,
        reading: Reading | None = None,
        cause: Cause | None = None,
        source: Source | None = None,
        observed: datetime | None = None,
        checksums: Mapping[str, str] | None = None,
        **more: Any,
    ) -> Statement:
        """*event* of *row*; `reading` is what was read, `checksums` what a transfer tool compared, if anything was.

        Raises:
            Cannot: nobody knows any digest of the product.
        """
        looked = reading.observed if reading is not None else observed
        digests = self._digests(row, event, origin, reading)
        if checksums is not None:
            digests["hashes"] = {a: h for a, h in checksums.items() if a != digests["hash_algorithm"]} or None
        manifest = reading.manifest if reading is not None else None
        attributes = attributes_of(key.name, manifest) if event in (Event.CREATE, Event.COPY, Event.VERIFY) else None
        return Statement(
            **digests,
            **key.fields(),
            **more,
            name=base_name(key.name),
            event=event,
            event_id=row.event_id,
            site=self.options.site,
            signer=signer,
            rse=rse,
            time=format_time(row.at),
            observed=format_time(looked) if looked is not None else None,
            source=source,
            cause=cause,
            service=self._service(),
            attributes=dict(attributes) if attributes else None,
            found=Found(reading.size, dict(reading.hashes)) if reading and event is Event.CORRUPT else None,
            salt=new_salt(),
        )

    def _digests(self, row: Row, event: Event, origin: Statement | None, reading: Reading | None) -> dict[str, Any]:
        """The origin's digests; as long as there is none, the reading's if it is good, else those of Rucio's row."""
        if origin is not None:
            names = ("size", "hash", "hash_algorithm", "hashes", "contents")
            return {name: getattr(origin, name) for name in names}
        if reading is not None and event in (Event.CREATE, Event.COPY, Event.VERIFY):
            others = {name: value for name, value in reading.hashes.items() if name != MAIN_ALGORITHM}
            return {
                "size": reading.size,
                "hash": reading.hashes[MAIN_ALGORITHM],
                "hash_algorithm": MAIN_ALGORITHM,
                "hashes": others or None,
                "contents": reading.contents,
            }
        expected = Expected.of_row(row)
        for algorithm in ("MD5", "ADLER32"):  # the one that says more
            if algorithm in expected.hashes:
                others = {name: value for name, value in expected.hashes.items() if name != algorithm}
                return {
                    "size": expected.size or 0,
                    "hash": expected.hashes[algorithm],
                    "hash_algorithm": algorithm,
                    "hashes": others or None,
                }
        raise Cannot(
            f"{event} of {row.scope}:{row.name}",
            expected="an origin, or a checksum in Rucio",
            found="neither",
            hint="`rucio-trace outbox skip` gives it up",
        )

    def compose_dataset(
        self,
        row: Row,
        key: ProductKey,
        event: Event,
        of: Listing | Statement,
        *,
        signer: str,
        observed: datetime,
        cause: Cause | None,
        **more: Any,
    ) -> Statement:
        """*event* of a dataset whose list is *of*; `observed` is when the list was read."""
        return Statement(
            **key.fields(),
            **more,
            hash=of.hash,
            hash_algorithm=of.hash_algorithm,
            size=of.size,
            members=of.members,
            name=base_name(key.name),
            event=event,
            event_id=row.event_id,
            site=self.options.site,
            signer=signer,
            time=format_time(row.at),
            observed=format_time(observed),
            cause=cause,
            service=self._service(),
            salt=new_salt(),
        )

    def cause(self, who: Who, transfer: Transfer | None) -> Cause | None:
        """Who and what made it happen; None where nothing is known."""
        account = who.account or (transfer.account if transfer else None)
        cause = Cause(
            account=self._account(account),
            action=who.action,
            rule=who.rule or (transfer.rule if transfer else None),
            request=transfer.id if transfer else None,
            activity=transfer.activity if transfer else None,
            tool=transfer.tool if transfer else None,
        )
        return None if cause == Cause() else cause

    def _account(self, internal: str | None) -> str | None:
        if not internal or self.options.accounts == "omit":
            return None
        name = str(InternalAccount(internal, from_external=False).external)
        if self.options.accounts == "keep":
            return name
        return pseudonym(self.options.accounts_key, name)

    def _service(self) -> Service | None:
        service = self.options.service
        if service is None:
            return None
        return Service(service.context or None, service.type or None, service.provider or None)
