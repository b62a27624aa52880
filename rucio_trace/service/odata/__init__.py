"""`/trace-api`: what scripts ask that were written for the Traceability Service of 2021 (OData 4)."""

from rucio_trace.service.odata.routes import router

__all__ = ["router"]
