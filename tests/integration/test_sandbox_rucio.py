from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from rucio_trace_sandbox.processes import living
from rucio_trace_sandbox.rest import gunicorn, in_process
from sqlalchemy import make_url, text

if TYPE_CHECKING:
    from pathlib import Path

    from rucio_trace_sandbox.embedded import EmbeddedRucio
    from rucio_trace_sandbox.rest import Rest


def _names(rucio: EmbeddedRucio) -> list[tuple[str, str]]:
    with rucio.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text("SELECT name, state FROM replicas ORDER BY name"))]


@pytest.mark.parametrize("turn", ["first", "second"])
def test_every_test_gets_an_empty_rucio(rucio: EmbeddedRucio, turn: str) -> None:
    assert _names(rucio) == []
    stored = rucio.upload(rucio.add_posix_rse("DISK"), turn, b"content")
    assert _names(rucio) == [(turn, "A")]
    assert stored.path.read_bytes() == b"content"


def test_the_file_lies_where_rucio_looks_for_it(rucio: EmbeddedRucio) -> None:
    from rucio.rse import rsemanager

    stored = rucio.upload(rucio.add_posix_rse("DISK"), "file.bin", b"content")
    settings = rsemanager.get_rse_info("DISK", vo=rucio.vo)
    assert rsemanager.exists(settings, [{"scope": "test", "name": "file.bin"}]) is True
    assert stored.did == "test:file.bin"


def test_the_engine_is_the_one_that_rucio_uses(rucio: EmbeddedRucio) -> None:
    from rucio.db.sqla.session import get_session

    assert get_session()().bind is rucio.engine
    assert rucio.engine.url == make_url(rucio.url)


def test_a_fresh_interpreter_sees_the_same_rucio(rucio: EmbeddedRucio) -> None:
    rucio.add_posix_rse("DISK")
    code = "from rucio.core.rse import list_rses\nfor rse in list_rses(): print(rse['rse'])"
    assert rucio.home.run_python(code) == "DISK\n"


def test_a_configured_option_reaches_this_process_and_the_next(rucio_sqlite: EmbeddedRucio) -> None:
    from rucio.common.config import config_get

    rucio_sqlite.configure(traceability={"policy_package": "somebody_elses"})
    assert config_get("traceability", "policy_package", check_config_table=False) == "somebody_elses"
    code = "from rucio.common.config import config_get as get; print(get('traceability', 'policy_package', False))"
    assert rucio_sqlite.home.run_python(code) == "somebody_elses\n"


def test_the_stock_client_uploads_through_rest(rucio: EmbeddedRucio, rest: Rest, folder: Path) -> None:
    rse = rucio.add_posix_rse("DISK")
    product = folder / "product.bin"
    product.write_bytes(b"content")
    assert rest.upload(product, "DISK") == "test:product.bin"
    assert _names(rucio) == [("product.bin", "A")]
    assert rucio.pfn_path(rse, "product.bin").read_bytes() == b"content"


def test_each_account_keeps_its_own_token(rucio_sqlite: EmbeddedRucio) -> None:
    with in_process(rucio_sqlite.folder / "rest") as rest:
        alice = rest.add_account("alice")
        assert alice.whoami()["account"] == "alice"
        assert rest.root.whoami()["account"] == "root"
        assert list(alice.list_scopes_for_account("alice")) == ["user.alice"]


def test_gunicorn_serves_the_home_as_it_is_configured(rucio: EmbeddedRucio) -> None:
    rucio.home.configure({"policy": {"support": "somebody@example.org"}})
    rucio.add_posix_rse("DISK")
    with gunicorn(rucio.home, rucio.folder / "gunicorn") as rest:
        assert [rse["rse"] for rse in rest.root.list_rses()] == ["DISK"]
        listed = rest.home.rucio("rse", "list", "--csv")
        assert (listed.returncode, listed.stdout.split()) == (0, ["DISK"])
        pid = rest.server.pid
        assert len(living(pid)) >= 2  # the arbiter and its worker
    assert living(pid) == []
