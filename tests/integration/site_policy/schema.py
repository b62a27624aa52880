"""Rucio's generic schemas, with a scope of at most 17 characters."""

from rucio.common.schema.generic import *  # noqa: F403

SCOPE_LENGTH = 17
