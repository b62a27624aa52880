"""docs/format.md: its example is a real trace, its tables name what the program knows."""

import re
from pathlib import Path

import pytest
from authority import NOW

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
    [example] = blocks("json")
    [trace] = parse_traces(example.encode())
    assert check_trace(trace, trust, NOW).member == "SITE-A"


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
