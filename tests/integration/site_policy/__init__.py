"""A federation's own policy package, small: the one that ours must wrap in the tests."""

SUPPORTED_VERSION = ">=41,<42"


def get_algorithms():
    from .scope import extract

    return {"scope": {"site": extract}}
