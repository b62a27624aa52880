"""Errors cross into another process as they are."""

from __future__ import annotations

import pickle

import pytest
from rucio_trace_daemons.storage_errors import Changed, LeaseLost, NotFound, PrefixMissing, Refused, ShortRead

from rucio_trace.errors import ConfigurationError, Malformed, TraceabilityError


@pytest.mark.parametrize(
    "error",
    [
        Malformed("file", expected="JSON", found="XML", hint="look"),
        ConfigurationError("option"),
        NotFound("test:file on HERE"),
        Refused("test:file on HERE"),
        PrefixMissing("HERE"),
        ShortRead("test:file on HERE", 8, 7),
        Changed("test:file on HERE"),
        LeaseLost(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_is_the_same_in_another_process(error: TraceabilityError) -> None:
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)
