"""`/api/v2`: everything the store can, for our own clients, the recorder and scripts (docs/service.md)."""

from rucio_trace.service.native import register

__all__ = ["ROUTERS"]

ROUTERS = (register.router,)
