"""As the site does it."""

from site_policy.scope import extract, scope

__all__ = ["extract", "scope"]
