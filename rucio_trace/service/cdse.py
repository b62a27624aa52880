"""`/api/status` and `/api/v1`: what the Copernicus trace client speaks, unmodified."""

from __future__ import annotations

from fastapi import APIRouter

__all__ = ["router"]

router = APIRouter(prefix="/api", tags=["Copernicus"])
