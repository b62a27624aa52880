"""The wrapped policy package's `fts3_plugins_init`, if it has one."""

from .wrapping import become_wrapped

become_wrapped(__name__)
