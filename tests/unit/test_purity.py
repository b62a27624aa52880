"""The trust core reads no file, no network and no clock: a newcomer can trust it by reading it."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent.parent / "rucio_trace"
PURE = tuple(
    """accounts asking batch certificates chains checking corrections dataset envelope errors faults fields history
    identity joining keys lineage matching merkle paths product_digest revocation statement status strictjson trace
    unpacked verify words exchange/cdse exchange/incoming exchange/prov""".split()  # noqa: SIM905 - reads better so
)
ALLOWED = frozenset(
    """__future__ base64 binascii blake3 collections cryptography dataclasses datetime difflib enum functools hashlib
    hmac json math orjson re secrets tomllib typing uuid""".split()  # noqa: SIM905
)
OURS = frozenset(f"rucio_trace.{module}" for module in PURE)
# names that read a clock or a file, whatever they are called on
IMPURE_CALLS = frozenset({"now", "utcnow", "today", "open", "read_text", "read_bytes", "getenv", "print", "input"})


def imports(tree: ast.AST) -> set[str]:
    """Every module that is imported when the program runs, as a dotted name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names]
            found.update(names if module == "rucio_trace" else [module])
    return found


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_imports_nothing_impure(module: str) -> None:
    for name in imports(ast.parse((PACKAGE / f"{module}.py").read_text())):
        assert name in OURS or name.partition(".")[0] in ALLOWED, name


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_reads_no_clock_and_no_file(module: str) -> None:
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            assert called not in IMPURE_CALLS, f"line {node.lineno}: {called}"
