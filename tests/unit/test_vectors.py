"""The vectors: every valid one is accepted, every invalid one refused, with the fault it is named for."""

import json
import subprocess
from pathlib import Path

import pytest
from authority import NOW

from rucio_trace.checking import Refused, check_trace
from rucio_trace.envelope import Trace, parse_traces
from rucio_trace.errors import Malformed
from rucio_trace.identity import Trust
from rucio_trace.trace import parse, serialise
from rucio_trace.verify import Candidate, Evidence, Verdict, judge

VECTORS = Path(__file__).parent.parent / "vectors"
VALID = sorted((VECTORS / "valid").glob("*.json"))
INVALID = sorted((VECTORS / "invalid").glob("*.json"))
FAULTS = json.loads((VECTORS / "faults.json").read_text())


@pytest.fixture(scope="module")
def trust() -> Trust:
    pki = VECTORS / "pki"
    return Trust.from_federation((pki / "federation.toml").read_text(), lambda name: (pki / name).read_bytes())


def candidate_of(trace: Trace) -> Candidate:
    """The very file the trace speaks of."""
    s = trace.statement
    algorithms = [s.hash_algorithm] if s.hash_algorithm else ["BLAKE3", "SHA256", "SHA3"]
    return Candidate(file=s.name, base_name=s.name, size=s.size, hashes=dict.fromkeys(algorithms, s.hash))


def test_there_are_vectors() -> None:
    assert len(VALID) > 15
    assert {path.stem for path in INVALID} == FAULTS.keys()


@pytest.mark.parametrize("path", VALID, ids=lambda p: p.stem)
def test_a_valid_vector_is_accepted(path: Path, trust: Trust) -> None:
    [trace] = parse_traces(path.read_bytes())
    accepted = check_trace(trace, trust, NOW)
    assert accepted.trace is trace
    assert serialise(parse(trace.message)) == trace.message


@pytest.mark.parametrize("path", VALID, ids=lambda p: p.stem)
def test_openssl_verifies_our_signatures(path: Path, tmp_path: Path) -> None:
    [trace] = parse_traces(path.read_bytes())
    (tmp_path / "certificate.der").write_bytes(trace.certificate)
    (tmp_path / "signature").write_bytes(trace.signature)
    (tmp_path / "message").write_bytes(trace.message.encode())
    key = subprocess.run(
        ["openssl", "x509", "-inform", "DER", "-in", "certificate.der", "-pubkey", "-noout"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    (tmp_path / "key.pem").write_bytes(key.stdout)
    verified = subprocess.run(
        ["openssl", "dgst", "-sha256", "-verify", "key.pem", "-signature", "signature", "message"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert verified.returncode == 0, verified.stdout + verified.stderr


@pytest.mark.parametrize("path", INVALID, ids=lambda p: p.stem)
def test_an_invalid_vector_is_refused_for_what_it_is(path: Path, trust: Trust) -> None:
    expected = FAULTS[path.stem]
    if expected == "Malformed":
        with pytest.raises(Malformed):
            parse_traces(path.read_bytes())
        return
    [trace] = parse_traces(path.read_bytes())
    with pytest.raises(Refused) as refused:
        check_trace(trace, trust, NOW)
    assert expected in [fault.kind for fault in refused.value.faults]
    verdict = judge(candidate_of(trace), [Evidence(trace)], trust, NOW).verdict
    assert verdict not in (Verdict.GENUINE, Verdict.OBSOLETE)


@pytest.mark.parametrize("path", VALID, ids=lambda p: p.stem)
def test_with_no_anchors_nothing_is_accepted(path: Path) -> None:
    [trace] = parse_traces(path.read_bytes())
    assert judge(candidate_of(trace), [Evidence(trace)], Trust.from_anchors([]), NOW).verdict is Verdict.UNTRUSTED
