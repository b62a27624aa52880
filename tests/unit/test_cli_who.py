"""`rucio-trace who`: what is told of each copy and each deletion, and to whom the accounts are told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from commands import DAY, NOW, lines, run
from samples import batch_statement
from test_cli_store import HOSTILE, NAME, NEW, OLD, Site

from rucio_trace.accounts import pseudonym
from rucio_trace.batch import Line, write_lines
from rucio_trace.cli.terminal import printable
from rucio_trace.envelope import sign
from rucio_trace.store import Store
from rucio_trace.trace import Cause, Event, Found, Source, format_time

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rucio_trace.envelope import Trace

KEY = b"a secret of this site"
GOOD = {"BLAKE3": "a" * 64}
UNREAD = {"method": None, "observed": None}


@pytest.fixture(autouse=True)
def no_rucio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine on which no Rucio is configured."""
    from rucio.common import config

    monkeypatch.setenv("RUCIO_HOME", str(tmp_path))
    config.clean_cached_config()
    yield
    config.clean_cached_config()


def caused(account: str, action: str, **more: str) -> Cause:
    return Cause(account=pseudonym(KEY, account), action=action, **more)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """An old product, deleted; a new one: uploaded by alice, copied for bob, broken there, deleted everywhere."""
    site = Site(tmp_path_factory.mktemp("site"))
    created = site.made(NEW, Event.CREATE, 8, GOOD, cause=caused("alice", "upload"))
    transfer = caused("bob", "add_rule", rule="4f2a", request="9c", activity="Staging", tool="fts3")
    source = Source("SITE-A_DISK", created.id)
    site.register(
        site.made(OLD, Event.CREATE, 19, {"BLAKE3": "0" * 64}),
        site.made(OLD, Event.DELETE, 18, {"BLAKE3": "0" * 64}, **UNREAD),
        created,
        site.made(NEW, Event.COPY, 7, GOOD, rse="SITE-B_DISK", source=source, cause=transfer),
        site.made(NEW, Event.VERIFY, 6.5, GOOD, rse="SITE-B_DISK"),
        site.made(NEW, Event.CORRUPT, 6, GOOD, rse="SITE-B_DISK", found=Found(2, {"BLAKE3": "c" * 64})),
        site.made(NEW, Event.DELETE, 5, GOOD, cause=caused("bob", "del_rule", rule="4f2a"), **UNREAD),
        site.made(NEW, Event.DELETE, 4, GOOD, rse="SITE-B_DISK", **UNREAD),
        site.made(HOSTILE, Event.CREATE, 4, GOOD, cause=Cause(account="\x1b[2J\u202eroot", action="a\nb")),
    )
    (site.config.parent / "accounts.key").write_bytes(KEY + b"\n")
    with site.config.open("a") as config:
        config.write('[recorder]\naccounts_key = "accounts.key"\n')
    return site


def told(site: Site, *options: str) -> list[dict[str, object]]:
    return lines(run("who", f"s2:{NAME}", "--json", *options, config=site.config, code=0))


def test_each_copy_and_deletion_says_who_how_and_what_was_left(site: Site) -> None:
    create, copy, corrupt, delete, other = told(site, "--account", "alice", "--account", "bob")[:5]
    assert (create["event"], create["account"], create["action"]) == ("CREATE", "alice", "upload")
    assert create["signed_account"] == pseudonym(KEY, "alice")
    assert {key: copy[key] for key in ("account", "action", "rule", "request", "activity", "tool")} == {
        "account": "bob", "action": "add_rule", "rule": "4f2a", "request": "9c", "activity": "Staging", "tool": "fts3",
    }  # fmt: skip
    assert copy["source"] == {"rse": "SITE-A_DISK", "trace": create["id"]}
    assert (corrupt["event"], corrupt["proven_left"], corrupt["last_copy"]) == ("CORRUPT", 1, False)
    assert (delete["account"], delete["proven_left"], delete["last_copy"]) == ("bob", 0, True)
    assert (other["rse"], other["proven_left"], other["last_copy"]) == ("SITE-B_DISK", 0, False)  # it was corrupt
    assert (create["last_copy"], create["unverified"], create["withdrawn_by"]) == (None, None, None)


def test_generations_stand_apart_the_newest_first(site: Site) -> None:
    assert [item["generation"] for item in told(site)] == [NEW.generation] * 5 + [OLD.generation] * 2
    only = told(site, "--generation", OLD.generation)
    assert [(item["event"], item["last_copy"]) for item in only] == [("CREATE", None), ("DELETE", True)]
    text = run("who", f"s2:{NAME}", config=site.config, code=0).stdout
    new, old = text.split(f"s2:{NAME} of example")[1:]
    assert ("SITE-B_DISK" in new, "SITE-B_DISK" in old) == (True, False)
    assert new.count("last copy") == old.count("last copy") == 1


def test_pseudonyms_stay_where_the_key_is_not_or_the_name_is_unknown(site: Site, tmp_path: Path) -> None:
    config = tmp_path / "keyless.toml"
    config.write_text(f'[store]\nurl = "{site.url}"\n[trust]\nanchors = ["{site.party.ca}"]\n')
    keyless = run("who", f"s2:{NAME}", "--account", "bob", config=config, code=0)
    assert "bob" not in keyless.stdout
    assert "--accounts-key" in keyless.stderr
    given = run("who", f"s2:{NAME}", "--account", "bob", "--accounts-key", site.config.parent / "accounts.key",
                config=config, code=0)  # fmt: skip
    assert "bob" in given.stdout
    assert pseudonym(KEY, "alice") in given.stdout
    assert "1 pseudonyms are of no account known here" in given.stderr
    (tmp_path / "short.key").write_text("short")
    assert (
        "16 bytes" in run("who", f"s2:{NAME}", "--accounts-key", tmp_path / "short.key", config=config, code=2).stderr
    )


def test_what_is_not_accepted_is_marked_and_counts_for_nothing(site: Site, tmp_path: Path) -> None:
    other = Site(tmp_path)  # whose authority nobody here trusts
    with Store.open(other.url) as store, Store.open(site.url, migrate=False) as source:
        store.register([s.trace for s in source.since(0)], trust=None)
        forged: list[Trace] = [
            other.made(NEW, Event.COPY, 5.5, GOOD, rse="FORGED"),
            other.made(OLD, Event.COPY, 5.5, {"BLAKE3": "0" * 64}, rse="FORGED"),
        ]
        store.register(forged, trust=None)
    config = tmp_path / "strict.toml"
    config.write_text(f'[store]\nurl = "{other.url}"\n[trust]\nanchors = ["{site.party.ca}"]\n')
    found = lines(run("who", f"s2:{NAME}", "--json", config=config, code=0))
    marked = [item for item in found if item["unverified"]]
    assert [item["rse"] for item in marked] == ["FORGED", "FORGED"]
    assert "no anchor vouches" in str(marked[0]["unverified"])
    assert [item["last_copy"] for item in found if item["rse"] == "SITE-A_DISK" and item["event"] == "DELETE"] == [
        True,
        True,
    ]
    assert "unverified" in run("who", f"s2:{NAME}", config=config, code=0).stdout
    config.write_text(f'[store]\nurl = "{other.url}"\n')
    assert "nobody is trusted" in run("who", f"s2:{NAME}", config=config, code=0).stderr


def test_a_withdrawn_deletion_says_so_and_took_nothing(tmp_path: Path) -> None:
    site = Site(tmp_path)
    wrong = site.made(NEW, Event.DELETE, 5, GOOD, **UNREAD)
    revoke = site.made(NEW, Event.REVOKE, 4, GOOD, revokes=wrong.id, rse=None, **UNREAD)
    site.register(site.made(NEW, Event.CREATE, 8, GOOD), wrong, revoke)
    [_, delete] = told(site)
    assert (delete["withdrawn_by"], delete["last_copy"]) == (revoke.id, None)
    assert f"withdrawn by {revoke.id}" in run("who", f"s2:{NAME}", config=site.config, code=0).stdout


def test_a_copy_that_a_batch_proved_is_left_if_the_batch_is_believed(tmp_path: Path) -> None:
    for name in ("site", "stranger"):
        (tmp_path / name).mkdir()
    site, stranger = Site(tmp_path / "site"), Site(tmp_path / "stranger")
    site.register(
        site.made(NEW, Event.CREATE, 8, GOOD),
        site.made(NEW, Event.COPY, 7, GOOD, rse="SITE-B_DISK", method="transfer", observed=None),
    )

    def batch(by: Site, days_ago: float) -> None:
        line = Line(NEW.did, NEW.generation, "BLAKE3:" + "a" * 64, format_time(NOW - days_ago * DAY))
        signer = by.party.issued.signer
        own = {"site": "SITE-A", "signer": signer.fingerprint, "rucio": NEW.rucio, "rse": "SITE-B_DISK"}
        trace = sign(batch_statement([line], **own), signer)
        with Store.open(site.url) as store:
            [answer] = store.register([trace], trust=None, lists={trace.id: write_lines([line])})
            assert answer.outcome == "stored", answer

    def left() -> list[object]:
        return [(item["proven_left"], item["unread_left"]) for item in told(site) if item["event"] == "DELETE"]

    site.register(site.made(NEW, Event.DELETE, 2, GOOD, **UNREAD))
    batch(stranger, 6)
    assert left() == [(0, 1)]
    batch(site, 5)
    assert left() == [(1, 0)]


def test_hostile_accounts_are_shown_harmlessly(site: Site) -> None:
    text = run("who", f"s2:{HOSTILE.name}", config=site.config, code=0).stdout
    assert all(printable(line, limit=None) == line for line in text.split("\n"))
    assert "\\x1b[2J\\u202eroot" in text
    assert run("who", f"s2:{HOSTILE.name}", "--json", config=site.config, code=0).stdout.isascii()


def test_wrong_use_and_unknown_products_are_told(site: Site) -> None:
    run("who", "no-colon", config=site.config, code=2)
    run("who", f"s2:{NAME}", "--generation", "yesterday", config=site.config, code=2)
    assert "no traces" in run("who", "s2:none", config=site.config, code=3).stderr
    never = format_time(NOW - DAY)
    assert "no traces" in run("who", f"s2:{NAME}", "--generation", never, config=site.config, code=3).stderr
