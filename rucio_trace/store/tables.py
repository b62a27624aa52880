"""The store's tables.

The signed message is the truth; the columns beside it only help to find it. They are cut to what every
database can index, and held against the message again whenever a row is read. Names begin with `trace`
so that the tables can share a database with others.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

from rucio_trace.store.types import OPTIONS, UtcTime, Words, binary, indexed_text, long_binary, long_text

__all__ = [
    "INDEXED_CHARACTERS",
    "certificates",
    "contents",
    "counts",
    "digest_sets",
    "digests",
    "head",
    "indexable",
    "inputs",
    "lines",
    "list_pieces",
    "metadata",
    "older",
    "texts",
    "traces",
    "unindexed",
]

INDEXED_CHARACTERS: Final = 255
"""Longest text an index column holds: 255 characters of 4 bytes stay below PostgreSQL's 2,704 bytes an index entry
(MariaDB takes 3,072)."""


def indexable(text: str) -> str:
    """*text* as index columns hold it: cut, without the NUL that PostgreSQL refuses and the bytes of no encoding.

    No statement holds a lone surrogate, which is how a name on disk that is no UTF-8 is known: it finds nothing.
    """
    if len(text) <= INDEXED_CHARACTERS and text.isascii() and "\0" not in text:
        return text
    cut = text.replace("\0", "\ufffd")[:INDEXED_CHARACTERS]
    return cut.encode("utf-8", "replace").decode()


def _text(length: int = INDEXED_CHARACTERS) -> String:
    return indexed_text(length)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

# The last position given out. Whoever adds traces locks this one row first and holds it until commit;
# that is what makes the order of positions the order of commits, without gaps.
head = Table(
    "trace_head",
    metadata,
    Column("one", Integer, primary_key=True, autoincrement=False),
    Column("position", BigInteger, nullable=False),
    CheckConstraint("one = 1", name="one_row"),
    **OPTIONS,
)

# Leaf and intermediate certificates, each once, by the SHA-256 of their DER.
certificates = Table(
    "trace_certificates",
    metadata,
    Column("fingerprint", binary(32), primary_key=True),
    Column("certificate", long_binary(), nullable=False),
    **OPTIONS,
)

# What a statement says of its file's bytes: the copies of one product share one set. `id` is the
# position of the first trace that carried it.
digest_sets = Table(
    "trace_digest_sets",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("fingerprint", binary(32), nullable=False, unique=True),
    **OPTIONS,
)

# The file's own digests. Those of members stand here too in what a store before 0005 took; newer ones in
# `contents`. No foreign key: written in one transaction with their set and never changed.
digests = Table(
    "trace_digests",
    metadata,
    Column("digest", binary(64), primary_key=True),
    Column("digest_set", BigInteger, primary_key=True, autoincrement=False),
    Column("of_content", Boolean, primary_key=True),
    sqlite_with_rowid=False,
    **OPTIONS,
)

# The digests of archives' members, by their first 8 bytes as a signed number: the most rows by far. Whoever finds a
# trace by them compares with its message. Filled by `index`, not always in the transaction that stores the trace.
contents = Table(
    "trace_contents",
    metadata,
    Column("prefix", BigInteger, primary_key=True, autoincrement=False),
    Column("digest_set", BigInteger, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
    **OPTIONS,
)

# What `contents` and `texts` are still to hold of a trace. A row leaves as its trace can be found by them.
unindexed = Table(
    "trace_unindexed",
    metadata,
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("prefixes", long_text(), nullable=False),  # numbers, apart by spaces
    Column("words", long_text(), nullable=False),
    **OPTIONS,
)

traces = Table(
    "traces",
    metadata,
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("id", _text(64), nullable=False),
    Column("registered_at", UtcTime, nullable=False),
    Column("event", _text(16), nullable=False),
    Column("time", UtcTime, nullable=False),  # of the event; of its registration when it names none
    Column("name", _text(), nullable=False),
    Column("did", _text()),
    Column("generation", _text(32)),
    Column("rse", _text()),
    Column("revokes", _text(64)),
    Column("digest_set", BigInteger, ForeignKey(digest_sets.c.id), nullable=False),
    Column("certificate", binary(32), ForeignKey(certificates.c.fingerprint), nullable=False),
    Column("chain", long_binary(), nullable=False),  # the fingerprints of the intermediates, one after another
    Column("message", long_text(), nullable=False),
    Column("signature", long_binary(), nullable=False),
    Column(
        "provider", _text(64)
    ),  # whose token brought it, through a service; not signed, and only asked who may see it
    Column("claimed", long_text()),  # what stood unsigned beside a message that is not of our format, as JSON
    # Two members of the Traceability Service may sign one text; our texts name their signer.
    UniqueConstraint("id", "certificate"),
    Index(None, "did", "generation", "position"),
    Index(None, "name", "position"),
    Index(None, "rse", "position"),
    Index(None, "event", "position"),
    Index(None, "digest_set", "position"),
    Index(None, "time"),
    Index(None, "revokes"),
    **OPTIONS,
)

# Which CREATE names which bytes as an input: the way from a product to those made from it. The way back, to what
# it was made from, is in the message of its CREATE. No foreign key, for the reason given with `digests`.
inputs = Table(
    "trace_inputs",
    metadata,
    Column("digest", binary(64), primary_key=True),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
    **OPTIONS,
)

# The lists of batches, verbatim, in runs of lines; `path` leads from a run's root to the root that the trace at
# `position` signed. No foreign key, for the reason given with `digests`.
list_pieces = Table(
    "trace_list_pieces",
    metadata,
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("entries", long_binary(), nullable=False),
    Column("path", long_binary(), nullable=False),
    **OPTIONS,
)

# Where the last line is that a site had signed of a replica: one row per replica, however often it was verified.
# `product` is the SHA-256 of the product's key, `series` that of RSE and site, cut.
lines = Table(
    "trace_lines",
    metadata,
    Column("product", binary(32), primary_key=True),
    Column("series", binary(8), primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("line", Integer, nullable=False),
    sqlite_with_rowid=False,
    **OPTIONS,
)

# How much of what was there before version 5 is still to be counted and indexed: from `next` to `end`; no row, nothing.
older = Table(
    "trace_older",
    metadata,
    Column("next", BigInteger, primary_key=True, autoincrement=False),
    Column("end", BigInteger, nullable=False),
    **OPTIONS,
)

# The words of names and attributes, for `texts`: a row for the first trace of a name, and one more where its attributes
# hold others. On SQLite the index of words is a table of its own, `trace_words`, which a trigger fills.
texts = Table(
    "trace_texts",
    metadata,
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("words", Words(), nullable=False),
    Index("ix_trace_texts_words", "words", postgresql_using="gin", mysql_prefix="FULLTEXT"),
    **OPTIONS,
)

# How many traces there are, and between which positions; no RSE and no provider are empty texts.
counts = Table(
    "trace_counts",
    metadata,
    Column("event", _text(16), primary_key=True),
    Column("rse", _text(), primary_key=True),
    Column("provider", _text(64), primary_key=True),
    Column("traces", BigInteger, nullable=False),
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
    **OPTIONS,
)
