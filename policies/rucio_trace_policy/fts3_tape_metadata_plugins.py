"""The wrapped policy package's `fts3_tape_metadata_plugins`, if it has one."""

from .wrapping import become_wrapped

become_wrapped(__name__)
