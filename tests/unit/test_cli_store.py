"""The commands that ask the store: verify without traces, history, search."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from commands import DAY, NOW, Party, lines, run

from rucio_trace.cli.terminal import printable
from rucio_trace.digest import digest_file
from rucio_trace.envelope import Trace, parse_traces, sign
from rucio_trace.store import Store
from rucio_trace.trace import Cause, Event, Found, ProductKey, Source, Statement, format_time, new_event_id, new_salt

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NAME = "product.SAFE.zip"
OLD = ProductKey("example", "def", "s2", NAME, format_time(NOW - 20 * DAY))
NEW = ProductKey("example", "def", "s2", NAME, format_time(NOW - 9 * DAY))
HOSTILE = ProductKey("example", "def", "s2", "a\x1b[2J\u202eb\n" + "x" * 900, format_time(NOW - 9 * DAY))

SINCE = f"{NOW - 7.5 * DAY:%Y-%m-%dT%H:%M:%S}"
UNTIL = f"{NOW - 5.5 * DAY:%Y-%m-%dT%H:%M:%S}"


class Site:
    """A store with a configuration, and a signer who fills it."""

    def __init__(self, folder: Path) -> None:
        self.party = Party.in_folder(folder, since=NOW - 30 * DAY)
        self.config = folder / "rucio-trace.toml"
        self.url = f"sqlite:///{folder}/traces.db"
        self.config.write_text(f'[store]\nurl = "{self.url}"\n[trust]\nanchors = ["{self.party.ca}"]\n')

    def made(self, key: ProductKey, event: Event, days_ago: float, hashes: Mapping[str, str], **more: Any) -> Trace:
        signer = self.party.issued.signer
        moment = format_time(NOW - timedelta(days=days_ago))
        fields: dict[str, Any] = {
            "name": key.name,
            "size": 3,
            "hash": hashes["BLAKE3"],
            "hash_algorithm": "BLAKE3",
            "event": event,
            "event_id": new_event_id(),
            "site": "SITE-A",
            "signer": signer.fingerprint,
            "rse": "SITE-A_DISK",
            "time": moment,
            "observed": moment,
            "method": "read",
            "salt": new_salt(),
        }
        return sign(Statement(**{**fields, **key.fields(), **more}), signer)

    def register(self, *traces: Trace) -> None:
        with Store.open(self.url) as store:
            assert {r.outcome for r in store.register(traces, trust=None)} == {"stored"}


@pytest.fixture(scope="module")
def abc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("file") / NAME
    file.write_bytes(b"abc")
    return file


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, abc: Path) -> Site:
    """One name, two generations; the second is copied, one copy breaks, the other is deleted by a rule's end."""
    site = Site(tmp_path_factory.mktemp("site"))
    good = digest_file(abc, ["BLAKE3"]).hashes
    other = {"BLAKE3": "0" * 64}
    created = site.made(NEW, Event.CREATE, 8, good)
    site.register(
        site.made(OLD, Event.CREATE, 19, other),
        site.made(OLD, Event.DELETE, 18, other, method=None, observed=None),
        created,
        site.made(NEW, Event.COPY, 7, good, rse="SITE-B_DISK", source=Source("SITE-A_DISK", created.id)),
        site.made(NEW, Event.CORRUPT, 6, good, rse="SITE-B_DISK", found=Found(2, other)),
        site.made(
            NEW,
            Event.DELETE,
            5,
            good,
            rse="SITE-C_TAPE",
            method=None,
            observed=None,
            cause=Cause(account="p-7c1f", action="del_rule", rule="4f2a"),
        ),
        site.made(HOSTILE, Event.CREATE, 4, other),
    )
    return site


def test_a_file_is_judged_by_the_store(site: Site, abc: Path, tmp_path: Path) -> None:
    (found,) = lines(run("verify", "--json", abc, config=site.config, code=0))
    assert found["verdict"] == "GENUINE"
    assert found["product"] == {"rucio": "example", "vo": "def", "did": f"s2:{NAME}", "generation": NEW.generation}
    assert found["time_source"] == "registered"
    tampered = tmp_path / NAME
    tampered.write_bytes(b"abd")
    (found,) = lines(run("verify", "--json", tampered, "--did", f"s2:{NAME}", config=site.config, code=1))
    assert found["verdict"] == "TAMPERED"


def test_a_renamed_file_is_known_by_whatever_digest_was_signed(tmp_path: Path) -> None:
    site = Site(tmp_path)
    file = tmp_path / "renamed.bin"
    file.write_bytes(b"only ever digested by SHA512")
    hashes = digest_file(file, ["SHA512"]).hashes
    key = ProductKey("example", "def", "s2", "first-name.bin", format_time(NOW - 9 * DAY))
    site.register(site.made(key, Event.CREATE, 1, {"BLAKE3": hashes["SHA512"]}, hash_algorithm="SHA512", size=28))
    (found,) = lines(run("verify", "--json", file, config=site.config, code=0))
    assert found["product"]["did"] == key.did


def test_a_name_that_is_no_utf8_finds_nothing_and_stops_nothing(site: Site, abc: Path, tmp_path: Path) -> None:
    nameless = tmp_path / os.fsdecode(b"a\xff\xfe")
    nameless.write_bytes(b"unknown to everybody")
    found = lines(run("verify", "--json", nameless, abc, config=site.config, code=3))
    assert [line["verdict"] for line in found] == ["UNKNOWN", "GENUINE"]
    run("search", nameless.name, config=site.config, code=0)
    run("search", "--rse", nameless.name, config=site.config, code=0)
    run("history", f"s2:{nameless.name}", config=site.config, code=3)


def test_the_traces_of_the_store_convince_without_it(site: Site, abc: Path, tmp_path: Path) -> None:
    traces = run("history", f"s2:{NAME}", "--traces", config=site.config, code=0).stdout_bytes
    assert len(parse_traces(traces)) == 6
    (tmp_path / "t.json").write_bytes(traces)
    run("verify", abc, "--trace", tmp_path / "t.json", "--anchors", site.party.ca, code=0)


LIFE = ["CREATE", "DELETE", "CREATE", "COPY", "CORRUPT", "DELETE"]


def test_history_tells_each_generation_in_the_order_of_events(site: Site) -> None:
    text = run("history", f"s2:{NAME}", config=site.config, code=0).stdout
    assert re.findall(r"\b(CREATE|COPY|CORRUPT|DELETE)\b", text) == [
        "CREATE",
        "DELETE",
        "CREATE",
        "COPY",
        "CORRUPT",
        "DELETE",
    ]
    old, new = text.split(f"s2:{NAME} of example")[1:]
    assert "DEGRADED" in new
    assert "DEGRADED" not in old
    for part in ("SITE-B_DISK", "from SITE-A_DISK", "found BLAKE3 0000", "by p-7c1f", "through del_rule", "rule 4f2a"):
        assert part in new


def test_history_for_machines_repeats_what_was_signed(site: Site) -> None:
    found = lines(run("history", "--json", f"s2:{NAME}", config=site.config, code=0))
    assert [item["statement"]["event"] for item in found] == LIFE
    assert {"id", "position", "registered_at", "statement"} == found[0].keys()


def test_a_product_without_traces_is_not_found_out(site: Site) -> None:
    result = run("history", "s2:none", config=site.config, code=3)
    assert (result.stdout, "no traces" in result.stderr) == ("", True)


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ((), 7),
        (("product",), 6),
        ((f"s2:{NAME[:4]}",), 6),
        (("nothing",), 0),
        (("--event", "CORRUPT"), 1),
        (("--rse", "SITE-A_DISK"), 4),
        (("--digest", "0" * 64), 3),
        (("--since", SINCE), 4),
        (("--since", SINCE + "Z", "--until", UNTIL + "+00:00"), 2),
        (("--status", "DEGRADED"), 4),
        (("--limit", "2"), 2),
        (("product", "--event", "CREATE"), 2),
    ],
)
def test_search_finds_what_fulfils_everything(site: Site, arguments: tuple[str, ...], count: int) -> None:
    result = run("search", *arguments, "--json", config=site.config, code=0)
    assert len(lines(result)) == count
    table = run("search", *arguments, config=site.config, code=0).stdout
    assert len(re.findall(r"\b(CREATE|COPY|CORRUPT|DELETE)\b", table)) == count


def test_search_says_when_there_is_more_or_nothing(site: Site) -> None:
    assert "--limit" in run("search", "--limit", "7", config=site.config).stderr
    assert "no trace" in run("search", "nothing", config=site.config).stderr


def test_hostile_names_in_the_store_are_shown_harmlessly(site: Site) -> None:
    for arguments in (("search",), ("history", f"s2:{HOSTILE.name}")):
        text = run(*arguments, config=site.config, code=0).stdout
        assert all(printable(line, limit=None) == line for line in text.split("\n"))
        assert "\\x1b" in text
        assert "\\u202e" in text
    for option in ("--json", "--traces"):
        result = run("history", f"s2:{HOSTILE.name}", option, config=site.config, code=0)
        assert result.stdout.isascii()
    (trace,) = parse_traces(result.stdout_bytes)
    assert trace.statement.product == HOSTILE
    assert not trace.faults


def test_a_store_that_cannot_be_asked_is_an_error_and_no_verdict(abc: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text(f'[store]\nurl = "sqlite:///{tmp_path}/none/traces.db"')
    for arguments in (("history", "s2:x"), ("search",)):
        assert "store migrate" in run(*arguments, config=config, code=3).stderr
    (found,) = lines(run("verify", abc, "--json", config=config, code=3))
    assert found["verdict"] == "UNDECIDED"
    assert "store migrate" in found["faults"][0]["found"]
    config.write_text('[store]\nurl = "nonsense"')
    run("search", config=config, code=2)
    config.write_text("")
    assert "store.url" in run("search", config=config, code=2).stderr
