"""The wrapped policy package's `lfn2pfn`, if it has one."""

from .wrapping import become_wrapped

become_wrapped(__name__)
