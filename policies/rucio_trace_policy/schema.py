"""The wrapped policy package's `schema`, if it has one."""

from .wrapping import become_wrapped

become_wrapped(__name__)
