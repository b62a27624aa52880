"""Which paths may name a member of an archive, of a folder or of a manifest. Pure."""

__all__ = ["path_fault", "plain_path"]

_MAX_PATH_BYTES = 4_096  # PATH_MAX: nobody could unpack a longer one


def path_fault(path: str) -> str:
    """What is wrong with a member's path on Unix or Windows, or nothing."""
    parts = path.replace("\\", "/").split("/")
    if not path.strip("./"):
        return "an empty path"
    if parts[0] == "" or parts[0][1:2] == ":":
        return "an absolute path"
    if ".." in parts:
        return "a path with '..'"
    if "\0" in path:
        return "a path with a NUL character"
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        return "a path that is no UTF-8"
    return f"a path of {size} bytes" if size > _MAX_PATH_BYTES else ""


def plain_path(path: str) -> str:
    """*path* without leading `./`."""
    while path.startswith("./"):
        path = path[2:].lstrip("/")
    return path
