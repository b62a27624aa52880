"""The wrapped policy package's `scope`, if it has one."""

from .wrapping import become_wrapped

become_wrapped(__name__)
