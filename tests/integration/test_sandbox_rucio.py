from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import make_url, text

if TYPE_CHECKING:
    from rucio_trace_sandbox.embedded import EmbeddedRucio


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
