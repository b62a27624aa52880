"""The commands that use a store, with a trace service in its place."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import samples
from click.testing import CliRunner
from client_kit import Service
from unit.authority import DAY, pem_of

from rucio_trace.cli import cli
from rucio_trace.cli.signing import Voices
from rucio_trace.digest import digest_file
from rucio_trace.envelope import dumps, parse_traces
from rucio_trace.statement import Event, Input, Source

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from click.testing import Result

NAME = "product.zip"
KEY = samples.product(name=NAME, number="")  # type: ignore[arg-type]


class Site:
    """A service, and somebody who asks it from the command line."""

    def __init__(self, folder: Path) -> None:
        (folder / "ca.pem").write_bytes(samples.authority().pem)
        self.folder, self.service = folder, Service(folder / "service", f'anchors = ["{folder}/ca.pem"]')
        self.config = folder / "rucio-trace.toml"
        self.configure()

    def configure(self, **store: str) -> None:
        told = store or {"service": self.service.url, "token_file": str(self.service.token_file)}
        lines = "\n".join(f'{key} = "{value}"' for key, value in told.items())
        self.config.write_text(f'[store]\n{lines}\n[trust]\nanchors = ["{self.folder}/ca.pem"]\n')

    def run(self, *arguments: object, code: int | None = 0) -> Result:
        environment = {"RUCIO_TRACE_CONFIG": str(self.config), "XDG_STATE_HOME": str(self.folder / "state")}
        result = CliRunner().invoke(cli, [str(a) for a in arguments], env=environment)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert code in (None, result.exit_code), result.output
        return result

    def told(self, *arguments: object, code: int = 0) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.run(*arguments, code=code).stdout.splitlines()]

    def take(self, *traces: Any, code: int = 0) -> list[str]:
        """Import *traces*; the answers."""
        (self.folder / "traces.json").write_text(dumps(traces))
        return [answer["answer"] for answer in self.told("import", self.folder / "traces.json", "--json", code=code)]


@pytest.fixture(scope="module")
def site(sandbox_folder: Path) -> Iterator[Site]:
    folder = sandbox_folder / "client-cli"
    folder.mkdir()
    site = Site(folder)
    yield site
    site.service.close()


@pytest.fixture
def alone(folder: Path) -> Iterator[Site]:
    """With a service that a test may kill."""
    site = Site(folder)
    yield site
    site.service.close()


def test_what_is_imported_while_the_service_is_away_waits_and_goes_first(alone: Site) -> None:
    first, second, third = (samples.trace() for _ in range(3))
    assert alone.take(first) == ["stored"]
    alone.service.kill()
    assert alone.take(first, second, code=3) == ["spooled", "spooled"]
    status = alone.run("store", "status", code=3)
    assert "2 traces wait, 0 files refused" in status.stdout
    assert alone.service.url in status.stderr
    alone.service.start()
    assert alone.take(third) == ["stored"]
    with alone.service.store() as store:
        assert [s.id for s in store.since(0)] == [first.id, second.id, third.id]


def test_what_waits_can_be_delivered_by_itself(alone: Site) -> None:
    trace = samples.trace()
    alone.service.kill()
    alone.take(trace, code=3)
    alone.run("store", "deliver", code=3)
    alone.service.start()
    assert "nothing waits" in alone.run("store", "deliver").stderr
    with alone.service.store() as store:
        assert [s.id for s in store.since(0)] == [trace.id]


def test_what_the_service_refuses_later_is_set_aside_and_told(alone: Site) -> None:
    stranger = samples.trace()
    (alone.folder / "other.pem").write_bytes(samples.Authority.root("another").pem)
    alone.service.kill()
    alone.take(stranger, code=3)
    alone.service.config.write_text(alone.service.config.read_text().replace("ca.pem", "other.pem"))
    alone.service.start()
    alone.run("store", "deliver")
    (refused,) = alone.told("store", "status", "--json")[0]["refused"]
    assert stranger.id in open(refused).read()  # noqa: PTH123, SIM115


def test_only_a_database_is_migrated_and_copied(site: Site) -> None:
    for command in (("store", "migrate"), ("store", "copy", "sqlite:////nowhere/x.db")):
        assert "expected a database, found a trace service" in site.run(*command, code=2).stderr


def test_a_store_and_a_service_exclude_each_other(site: Site) -> None:
    try:
        site.configure(url="sqlite:////x.db", service=site.service.url)
        assert "store.service" in site.run("search", code=2).stderr
    finally:
        site.configure()


def test_a_service_on_the_command_line_stands_before_the_settings(site: Site) -> None:
    try:
        site.configure(url="sqlite:////nowhere/x.db")
        asked = ("--service", site.service.url)
        (status,) = site.told(*asked, "store", "status", "--json")
        assert status["store"] == site.service.url
        (site.folder / "one.json").write_text(dumps([samples.trace()]))
        assert "token" in site.run(*asked, "import", site.folder / "one.json", code=2).stderr
        site.run(*asked, "--token-file", site.service.token_file, "import", site.folder / "one.json")
    finally:
        site.configure()


def test_a_token_in_the_settings_is_for_the_service_there(site: Site) -> None:
    (site.folder / "two.json").write_text(dumps([samples.trace()]))
    site.run("import", site.folder / "two.json")
    other = site.service.url.replace("127.0.0.1", "localhost")
    assert "token" in site.run("--service", other, "import", site.folder / "two.json", code=2).stderr


@pytest.fixture(scope="module")
def life(site: Site) -> list[str]:
    file = site.folder / NAME
    file.write_bytes(b"0123456789")
    bytes_ = {"hash": digest_file(file, ["BLAKE3"]).hashes["BLAKE3"], "hash_algorithm": "BLAKE3"}
    create = samples.trace(Event.CREATE, KEY, **bytes_, inputs=(Input("raw.dat", samples.digest("raw")),))
    copy = samples.trace(Event.COPY, KEY, **bytes_, rse="RSE-B", source=Source("RSE-A", create.id))
    lines = [replace(samples.line(KEY), digest=f"BLAKE3:{bytes_['hash']}")]
    batch = samples.batch(lines)
    assert set(site.take(create, copy)) == {"stored"}
    with site.service.client() as client:
        (answer,) = client.register([batch], lists={batch.id: samples.write_lines(lines)})
    assert answer.outcome == "stored"
    return [create.id, copy.id, batch.id]


class TestAProduct:
    """Its life, by every command that shows it."""

    def test_history(self, site: Site, life: list[str]) -> None:
        found = site.told("history", KEY.did, "--json")
        assert [each["id"] for each in found] == life
        assert found[-1]["line"]["did"] == KEY.did
        assert "GENUINE, 2/2 good" in site.run("history", KEY.did).stdout

    def test_verify(self, site: Site, life: list[str]) -> None:
        (found,) = site.told("verify", site.folder / NAME, "--json")
        assert (found["verdict"], found["time_source"]) == ("GENUINE", "registered")

    def test_times_of_registration_are_only_believed_of_ones_own_service(self, site: Site, life: list[str]) -> None:
        other = site.service.url.replace("127.0.0.1", "localhost")
        (found,) = site.told("--service", other, "verify", site.folder / NAME, "--json")
        assert (found["verdict"], found["time_source"]) == ("GENUINE", "now")

    def test_search(self, site: Site, life: list[str]) -> None:
        assert [each["id"] for each in site.told("search", NAME, "--json")] == life[1::-1]
        assert [each["id"] for each in site.told("search", NAME, "--event", "COPY", "--json")] == life[1:2]
        since = f"{datetime.now(UTC):%Y-%m-%d}"
        assert site.told("search", NAME, "--since", since, "--json") == []

    def test_lineage(self, site: Site, life: list[str]) -> None:
        (found,) = site.told("lineage", KEY.did, "--json")
        assert [each["name"] for each in found["products"]] == [NAME, "raw.dat"]
        (found,) = site.told("lineage", samples.digest("raw"), "--down", "--json")
        assert [each["name"] for each in found["products"]] == ["raw.dat", NAME]

    def test_who_and_dataset_and_export(self, site: Site, life: list[str]) -> None:
        assert [each["id"] for each in site.told("who", KEY.did, "--json")] == life[:2]
        (site.folder / "dids").write_text(KEY.did)
        assert KEY.did in site.run("dataset", site.folder / "dids").stdout
        traces = parse_traces(site.run("export", KEY.did).stdout_bytes)
        assert {trace.id for trace in traces} >= set(life[:1])

    def test_proof(self, site: Site, life: list[str]) -> None:
        proof = site.run("proof", "show", KEY.did).stdout
        (site.folder / "proof.json").write_text(proof)
        site.run("proof", "check", site.folder / "proof.json", site.folder / NAME)


class TestCorrections:
    """What somebody says against a product goes to the service, and waits for it."""

    @pytest.fixture
    def signing(self, alone: Site) -> tuple[object, ...]:
        issued = samples.authority().issue("corrector", since=samples.START, until=samples.START + 365 * DAY)
        for name, pem in (("corrector.key", pem_of(issued.key)), ("corrector.pem", issued.chain_pem)):
            (alone.folder / name).write_bytes(pem)
        return "--key", alone.folder / "corrector.key", "--cert", alone.folder / "corrector.pem"

    def test_a_product_is_made_obsolete_and_a_trace_is_withdrawn(
        self, alone: Site, signing: tuple[object, ...]
    ) -> None:
        created, copied = samples.trace(Event.CREATE), samples.trace(Event.COPY)
        alone.take(created, copied)
        did = created.statement.did
        obsolete = alone.run("obsolete", did, "--reason", "reprocessed", *signing).stdout.strip()
        assert "obsolete already" in alone.run("obsolete", did, "--reason", "again", *signing).stderr
        alone.run("obsolete", did, "--undo", *signing)
        revoke = alone.run("revoke", copied.id, "--reason", "wrong", *signing).stdout.strip()
        with alone.service.store() as store:
            events = [(s.trace.statement.event, s.trace.statement.revokes) for s in store.by_did("test", "file1")]
            assert store.by_id(revoke)
        assert events[2:] == [("OBSOLETE", None), ("REVOKE", obsolete), ("REVOKE", copied.id)]

    def test_what_was_signed_when_the_service_went_is_registered_later(
        self, alone: Site, signing: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        created = samples.trace(Event.CREATE)
        alone.take(created)
        original = Voices.sign

        def sign(self: Voices, *args: Any, **options: Any) -> Any:
            alone.service.kill()  # after the product was looked up
            return original(self, *args, **options)

        monkeypatch.setattr(Voices, "sign", sign)
        result = alone.run("revoke", created.id, "--reason", "wrong", *signing, code=3)
        assert "rucio-trace store deliver" in result.stderr
        alone.service.start()
        alone.run("store", "deliver")
        with alone.service.store() as store:
            assert [s.id for s in store.since(0)] == [created.id, result.stdout.strip()]
