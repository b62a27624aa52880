"""The wrapped policy package's `non_deterministic_pfn`, if it has one."""

from .wrapping import become_wrapped

become_wrapped(__name__)
