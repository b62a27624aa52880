"""The wrapped policy package's `schema`, else the one Rucio would fall back to.

Were it *not there*, Rucio would say so on stderr at every command of every user.
"""

from .wrapping import GENERIC_SCHEMA, become_wrapped, is_multi_vo

become_wrapped(__name__, fallback=GENERIC_SCHEMA if is_multi_vo() else "rucio.common.schema.generic")
