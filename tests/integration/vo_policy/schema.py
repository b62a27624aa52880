"""As the site has it."""

from site_policy.schema import *  # noqa: F403
