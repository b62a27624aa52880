"""`/api/v2`: everything the store can, for our own clients, the recorder and scripts (docs/service.md)."""

from rucio_trace.service.native import feed, find, lineage, products, register, verdicts

__all__ = ["ROUTERS"]

ROUTERS = (
    register.router,
    find.router,
    products.router,
    verdicts.router,
    lineage.router,
    feed.router,
)
