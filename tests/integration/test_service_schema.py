"""The service's OpenAPI document, taken at its word: whatever it allows and forbids is sent, and nothing breaks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from samples import trace
from service_kit import Running, body, serving

from rucio_trace.service.access import Role

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKS = "not_a_server_error,response_schema_conformance,content_type_conformance,status_code_conformance"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("schema")
    with serving(folder, f"sqlite:///{folder / 'traces.db'}") as running:
        yield running


def test_nothing_that_the_document_allows_or_forbids_breaks_the_service(service: Running, tmp_path: Path) -> None:
    token = service.token("schema", "SITE", Role.REGISTER, Role.READ)
    with service.client(token) as client:
        assert client.post("/api/v2/traces", content=body([trace() for _ in range(5)])).json()["stored"] == 5
    argv = [str(Path(sys.executable).with_name("st")), "run", f"{service.url}/openapi.json"]
    argv += ["--header", f"Authorization: Bearer {token}", "--checks", CHECKS, "--max-examples", "20"]
    argv += ["--phases", "examples,coverage,fuzzing", "--seed", "1", "--max-time", "45", "--no-color"]
    argv += ["--exclude-path", "/api/v2/changes"]  # which waits for a minute if it is asked to
    result = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"})
    assert result.returncode == 0, result.stdout[-20_000:] + result.stderr[-2_000:]
    assert b"Traceback" not in service.server.log.read_bytes()
