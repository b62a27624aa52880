"""The traces that the OpenAPI document shows; tests/vectors/service/build.py signed them, and a test posts them."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

__all__ = ["ITEM", "TRACE"]

_EXAMPLES: dict[str, Any] = json.loads(files("rucio_trace.service.native").joinpath("examples.json").read_text("utf-8"))

TRACE: dict[str, Any] = _EXAMPLES["trace"]
ITEM: dict[str, Any] = _EXAMPLES["item"]
