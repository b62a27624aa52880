"""docs/format.md: its example is a real trace, its tables name what the program knows."""

import re
import subprocess
from pathlib import Path

import pytest
from authority import NOW

from rucio_trace.batch import check_line, check_list, parse_proof
from rucio_trace.checking import check_trace
from rucio_trace.envelope import parse_traces
from rucio_trace.identity import Trust
from rucio_trace.trace import ALGORITHMS, Event, Statement
from rucio_trace.verify import EXIT_CODES, Verdict

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "docs" / "format.md").read_text()
PKI = ROOT / "tests" / "vectors" / "pki"
SECTIONS = [
    "Product and origin",
    "Events",
    "Proof",
    "Exactly once",
    "The signed text",
    "Rights",
    "Judging",
    "Status in Rucio",
    "A guest in Rucio",
]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_the_example_is_genuine() -> None:
    federation = (PKI / "federation.toml").read_text()
    trust = Trust.from_federation(federation, lambda location: (PKI / location).read_bytes())
    example, _ = blocks("json")
    [trace] = parse_traces(example.encode())
    assert check_trace(trace, trust, NOW).member == "SITE-A"


def test_the_line_in_the_text_is_proven_by_the_list_in_the_text() -> None:
    _, example = blocks("json")
    proof = parse_proof(example.encode())
    federation = (PKI / "federation.toml").read_text()
    trust = Trust.from_federation(federation, lambda location: (PKI / location).read_bytes())
    assert check_trace(proof.trace, trust, NOW).member == "SITE-A"
    [written] = blocks("jsonl")
    assert check_list(proof.trace.statement, written.encode())[proof.index] == check_line(proof)


def test_the_root_in_the_text_is_computed_without_our_code(tmp_path: Path) -> None:
    [written] = blocks("jsonl")
    [script] = (block for block in blocks("sh") if block.startswith("leaf()"))
    (tmp_path / "list").write_text(written)
    found = subprocess.run(["sh", "-c", script], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    statement = parse_proof(blocks("json")[1].encode()).trace.statement
    assert statement.batch is not None
    assert found.strip() == statement.batch.root


def test_the_federation_file_in_the_text_is_read() -> None:
    files = {"site-a-ca.pem": (PKI / "root.pem").read_bytes(), "site-a.crl": (PKI / "issuing.crl").read_bytes()}
    [example] = blocks("toml")
    [member] = Trust.from_federation(example, files.__getitem__).members
    assert (member.name, member.outside) == ("SITE-A", False)


@pytest.mark.parametrize("key", [key for key in Statement.__dataclass_fields__ if key != "extra"])
def test_every_key_is_described(key: str) -> None:
    rows = [line.split("|")[1] for line in TEXT.splitlines() if line.startswith("|")]
    assert any(f"`{key}`" in row for row in rows)


def test_every_event_algorithm_and_verdict_is_described() -> None:
    for word in (*Event, *ALGORITHMS, *Verdict):
        assert f"`{word}`" in TEXT
    codes = re.search(r"7\.9 Exit codes: (.*?)\n\n", TEXT, re.DOTALL)
    assert codes
    for verdict, code in EXIT_CODES.items():
        part = codes[1].partition(f"{code} ")[2].partition(";")[0]
        assert f"`{verdict}`" in part


def test_sections_are_numbered_as_the_code_cites_them() -> None:
    assert re.findall(r"^## (\d) (.*)$", TEXT, re.MULTILINE) == [(str(n), s) for n, s in enumerate(SECTIONS, 1)]
