"""The examples of docs/client.md run, against a real service."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import samples
from client_kit import Service

from rucio_trace.digest import digest_file
from rucio_trace.envelope import dumps
from rucio_trace.statement import Event

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENT = (Path(__file__).parents[2] / "docs" / "client.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
ADDRESS = "https://traces.example.org"


@pytest.fixture(scope="module")
def home(sandbox_folder: Path) -> Iterator[Service]:
    folder = sandbox_folder / "client-document"
    folder.mkdir()
    (folder / "federation-ca.pem").write_bytes(samples.authority().pem)
    service = Service(folder, 'anchors = ["federation-ca.pem"]')
    (folder / "product.SAFE.zip").write_bytes(b"0123456789")
    bytes_ = {
        "hash": digest_file(folder / "product.SAFE.zip", ["BLAKE3"]).hashes["BLAKE3"],
        "hash_algorithm": "BLAKE3",
    }
    key = samples.ProductKey("RUCIO", "def", "s2", "product.SAFE.zip", samples.format_time(samples.START))
    traces = [samples.trace(event, key, **bytes_) for event in (Event.CREATE, Event.COPY)]
    (folder / "product.trace.json").write_text(dumps(traces))
    (folder / "service.token").write_text(service.token + "\n")
    yield service
    service.close()


# Registration, the last one, comes first: the others ask for what it brings.
@pytest.mark.parametrize("number", [2, 0, 1])
def test_an_example_runs(
    home: Service, number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(home.folder)
    assert len(EXAMPLES) == 3
    exec(compile(EXAMPLES[number].replace(ADDRESS, home.url), "docs/client.md", "exec"), {"__name__": "__main__"})  # noqa: S102
    told = capsys.readouterr().out
    assert {0: "GENUINE\n", 1: "2 of 2 traces", 2: " stored "}[number] in told
