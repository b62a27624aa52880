"""As the site decides."""

from site_policy.permission import has_permission

__all__ = ["has_permission"]
