"""The service's OpenAPI document, taken at its word: whatever it allows and forbids is sent, and nothing breaks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import schema_hooks
from samples import trace
from service_kit import body, serving

from rucio_trace.service.access import Role

CHECKS = "not_a_server_error,response_schema_conformance,content_type_conformance,status_code_conformance"


# Each sends something to every operation. Both on both databases would take twice as long.
@pytest.mark.parametrize(
    ("store_url", "phases"), [("sqlite", "examples,fuzzing"), ("postgresql", "coverage")], indirect=["store_url"]
)
def test_nothing_that_the_document_allows_or_forbids_breaks_the_service(
    store_url: str, phases: str, tmp_path: Path
) -> None:
    with serving(tmp_path, store_url) as service:
        token = service.token("schema", "SITE", Role.REGISTER, Role.READ)
        with service.client(token) as client:
            assert client.post("/api/v2/traces", content=body([trace() for _ in range(5)])).json()["stored"] == 5
        argv = [str(Path(sys.executable).with_name("st")), "run", f"{service.url}/openapi.json"]
        argv += ["--header", f"Authorization: Bearer {token}", "--checks", CHECKS, "--max-examples", "10"]
        argv += ["--phases", phases, "--seed", "1", "--request-timeout", "60", "--no-color"]
        hooks = Path(schema_hooks.__file__)
        environment = {"COLUMNS": "200", "SCHEMATHESIS_HOOKS": hooks.stem, "PYTHONPATH": str(hooks.parent)}
        result = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, env=os.environ | environment)
        assert result.returncode == 0, result.stdout[-20_000:] + result.stderr[-2_000:]
        assert b"Traceback" not in service.server.log.read_bytes()
