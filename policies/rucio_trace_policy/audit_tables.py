"""The tables of the auditor: campaigns, their rounds, what a round has left to read and to sign, and breakers."""

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, MetaData, Table, false

from .columns import NAME, RSE, SCOPE, Moment, Serial, long_text, product_key, short_text, table


def audits(metadata: MetaData, prefix: str) -> Table:
    """Campaigns: every replica of some RSEs is read anew, in rounds, from the oldest proof on."""
    return table(
        f"{prefix}audits",
        metadata,
        Column("id", Serial, primary_key=True, autoincrement=True),
        Column("rses", long_text(), nullable=False, comment="an RSE expression"),
        Column("sample", Float, nullable=False, comment="the share of an RSE's replicas that a round reads"),
        Column("bytes", BigInteger, comment="what a round reads of an RSE; NULL: no bound"),
        Column("every_seconds", Integer, nullable=False, comment="from the begin of an RSE's round to the next one's"),
        Column("started_at", Moment, nullable=False),
        Column("stopped_at", Moment, comment="NULL: it goes on"),
    )


def audit_rounds(metadata: MetaData, prefix: str) -> Table:
    """A campaign's rounds on each RSE: what was taken on and, once it has ended, what was found."""
    return table(
        f"{prefix}audit_rounds",
        metadata,
        Column("audit", Serial, primary_key=True, autoincrement=False),
        Column("rse_id", short_text(RSE), primary_key=True),
        Column("round", Integer, primary_key=True, autoincrement=False, comment="from 1"),
        Column("sweep_at", Moment, nullable=False, comment="what was proven since is not read again in this sweep"),
        Column("ends_sweep", Boolean, nullable=False, server_default=false(), comment="it takes all that is left"),
        Column("started_at", Moment, nullable=False),
        Column("ended_at", Moment, comment="NULL: under way, its replicas are in audit_work"),
        Column("replicas", BigInteger, nullable=False, comment="taken on"),
        Column("bytes", BigInteger, nullable=False, comment="taken on"),
        Column("good", BigInteger, nullable=False),
        Column("bad", BigInteger, nullable=False, comment="other bytes, or not there"),
        Column("unread", BigInteger, nullable=False, comment="could not be read, or had left Rucio by then"),
        Column("bytes_read", BigInteger, nullable=False, comment="of those good and bad"),
        Index(f"{prefix}audit_rounds_ended", "ended_at"),
    )


def audit_work(metadata: MetaData, prefix: str) -> Table:
    """What the present round of a campaign on an RSE is to read, and what it found: a row for each replica."""
    return table(
        f"{prefix}audit_work",
        metadata,
        Column("audit", Serial, primary_key=True, autoincrement=False),
        Column("rse_id", short_text(RSE), primary_key=True),
        Column("scope", short_text(SCOPE), primary_key=True),
        Column("name", short_text(NAME), primary_key=True),
        Column("generation", Moment, nullable=False),
        Column("ordinal", BigInteger, nullable=False, comment="the oldest proof first"),
        Column("bytes", BigInteger),
        Column("claimed_by", short_text()),
        Column("claimed_until", Moment),
        Column("attempts", Integer, nullable=False, server_default="0"),
        Column("not_before", Moment),
        Column("last_error", long_text()),
        Column("outcome", short_text(32), comment="NULL: still to be read; good, bad, unread"),
        Column("method", short_text(), comment="read, or storage"),
        Column("digest", short_text(), comment="ALGORITHM:hex, what was found good"),
        Column("observed", Moment, comment="when that was known; of a bad one, when it was written"),
        Column("batch", short_text(64), comment="the event whose trace holds the line"),
        Index(f"{prefix}audit_work_order", "audit", "rse_id", "outcome", "batch", "ordinal"),
    )


def audit_batches(metadata: MetaData, prefix: str) -> Table:
    """Signed VERIFY statements with their lines, kept before they are sent; gone once all of it is done."""
    return table(
        f"{prefix}audit_batches",
        metadata,
        Column("id", short_text(), primary_key=True, comment="the event's id"),
        Column("audit", Serial, nullable=False),
        Column("rse_id", short_text(RSE), nullable=False),
        Column("at", Moment, nullable=False),
        Column("message", long_text(), nullable=False, comment="the signed trace"),
        Column("lines", long_text(), nullable=False, comment="the list it speaks of"),
        Column("claimed_by", short_text()),
        Column("claimed_until", Moment),
        Column("last_error", long_text()),
    )


def audit_unread(metadata: MetaData, prefix: str) -> Table:
    """Replicas that could not be read: in the same sweep they hold up no other. Forgotten when the next one begins."""
    return table(
        f"{prefix}audit_unread",
        metadata,
        *product_key(),
        Column("rse_id", short_text(RSE), primary_key=True),
        Column("at", Moment, nullable=False),
    )


def breakers(metadata: MetaData, prefix: str) -> Table:
    """How many replicas of an RSE were found bad without a good one between; once open, nothing is declared there."""
    return table(
        f"{prefix}breakers",
        metadata,
        Column("rse_id", short_text(RSE), primary_key=True),
        Column("bad_in_a_row", Integer, nullable=False),
        Column("opened_at", Moment, comment="NULL: closed"),
        Column("reason", long_text(), comment="why it is open; once closed, why it was"),
        Column("reset_at", Moment, comment="what was read before counts no more"),
    )
