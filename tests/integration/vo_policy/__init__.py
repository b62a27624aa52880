"""The policy package of one VO, `aaa`: Rucio wants its algorithms' names to begin with the VO's."""

SUPPORTED_VERSION = ">=41,<42"


def get_algorithms():
    from .scope import extract

    return {"scope": {"aaa-site": extract}}
