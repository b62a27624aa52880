"""Products found by their content, in stores of today and of before."""

from __future__ import annotations

import blake3
from samples import START, product, trace
from sqlalchemy import delete, select

from rucio_trace.product_digest import product_digest
from rucio_trace.statement import Content
from rucio_trace.store import Store
from rucio_trace.store.bulk import insert_values
from rucio_trace.store.database import Database
from rucio_trace.store.rows import content_digests
from rucio_trace.store.tables import contents, digest_sets, digests

MEMBERS = tuple(Content(f"P/{name}", blake3.blake3(name.encode()).hexdigest()) for name in ("a", "b/c"))
DIGEST = product_digest((member.path, member.hash) for member in MEMBERS)
ARCHIVE = blake3.blake3(b"archive").hexdigest()


def archive(number: int = 1, **fields: object):  # type: ignore[no-untyped-def]
    wanted = {"hash_algorithm": "BLAKE3", "hash": ARCHIVE, "contents": MEMBERS, **fields}
    return trace(key=product(number), **wanted)  # type: ignore[arg-type]


def test_a_product_is_found_by_its_digest_and_its_history_with_it(store_url: str) -> None:
    one, bare = archive(1), trace(key=product(1), hash=ARCHIVE, hash_algorithm="BLAKE3", rse="RSE-B")
    with Store.open(store_url) as store:
        store.register([one, bare, archive(2, hash="1" * 64, contents=MEMBERS[:1])], trust=None)
        found = store.candidates({}, ["no such name"], product_digest=DIGEST)
        assert {evidence.trace.id for evidence in found} == {one.id, bare.id}
        assert [stored.id for stored in store.search(digest=DIGEST)] == [one.id]
        assert store.by_digest(DIGEST) == []
        assert store.by_content(DIGEST) == []
        assert {e.trace.id for e in store.candidates({}, ["x", "file1"])} == {one.id, bare.id}


def rows(database: Database) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]]]:
    with database.reading() as connection:
        sets = sorted(map(tuple, connection.execute(select(digest_sets))))
        return sets, sorted(map(tuple, connection.execute(select(digests))))


def test_an_older_stores_products_are_found_after_its_migration(empty_url: str) -> None:
    from alembic import command
    from alembic.config import Config

    with Store.open(empty_url) as store:
        odd = archive(4, hash="2" * 64, contents=(Content("a\nb", "3" * 64),))
        sha = archive(5, hash="4" * 64, hash_algorithm="SHA256")
        store.register([archive(1), trace(key=product(3)), odd, sha], trust=None)
        members = {stored.position: content_digests(stored.trace.statement) for stored in store.since(0)}
    database = Database(empty_url)
    with database.writing() as connection:  # as versions up to 0004 kept them
        of_members = [(digest, position, True) for position, of in members.items() for digest in of]
        insert_values(connection, digests, of_members)
        connection.execute(delete(contents))
    before = rows(database)
    with database.writing() as connection:
        config = Config()
        config.set_main_option("script_location", "rucio_trace.store:migrations")
        config.attributes["connection"] = connection
        command.downgrade(config, "0002")
    older = rows(database)
    assert len(older[1]) == len(before[1]) - 1
    with Store.open(empty_url) as store:
        assert rows(database) == before
        assert len(store.search(digest=DIGEST)) == 1
        store.register([archive(1, after=START - START, rse="RSE-B")], trust=None)  # another copy shares the set
        assert rows(database) == before
        assert len(store.search(digest=DIGEST)) == 2
