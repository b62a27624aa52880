"""What test_service_schema.py tells schemathesis of the service, which the document does not say."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import schemathesis

if TYPE_CHECKING:
    from schemathesis import Case, HookContext


@schemathesis.hook
def before_call(_context: HookContext, case: Case, _options: dict[str, Any]) -> None:
    """`GET /changes` waits as long as it is asked to: what may be asked for is asked for, of less patience."""
    with contextlib.suppress(KeyError, TypeError, ValueError):
        if case.path == "/api/v2/changes" and 0 <= float(case.query["wait"]) <= 60:
            case.query["wait"] = float(case.query["wait"]) / 1000
