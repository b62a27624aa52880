"""The wrapped policy package's `pfn2lfn`, if it has one."""

from .wrapping import become_wrapped

become_wrapped(__name__)
