"""Rucio policy package: says who acts in a transaction, and shows what traces tell of a DID.

Rucio knows one policy package. Where a federation has its own already, this one wraps it:

    [policy]
    package = rucio_trace_policy
    [traceability]
    policy_package = NAME

Every question this package has no answer of its own to goes to NAME, found by the rules by which Rucio would have
found it. The other way round works too: NAME stays Rucio's package and calls `tag_transaction` and
`check_provenance` from `rucio_trace_policy.permission`.

Importing this module reads the configuration and imports nothing of Rucio's server: clients load it too.
"""

from collections.abc import Callable
from typing import Any

from .wrapping import wrapped_algorithms

SUPPORTED_VERSION = ">=41,<42"  # Rucio compares its major version alone

__all__ = ["SUPPORTED_VERSION", "get_algorithms"]


def get_algorithms() -> dict[str, dict[str, Callable[..., Any]]]:
    """The wrapped package's algorithms; we add none."""
    return wrapped_algorithms()
