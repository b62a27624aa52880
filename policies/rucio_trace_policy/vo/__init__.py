"""Our policy package once for every VO of a Rucio that serves several.

Rucio asks each VO's package for its modules without saying for which VO. So each VO names one of its own:

    [policy]
    package-abc = rucio_trace_policy.vo.abc
    [traceability]
    policy_package-abc = NAME

`rucio_trace_policy.vo.abc` wraps NAME as `rucio_trace_policy` wraps the one package of a Rucio with one VO; without
NAME Rucio's own rules decide. These packages exist in no file: they are made when Rucio imports them.
"""

from __future__ import annotations

import importlib
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING

from rucio_trace_policy.wrapping import GENERIC_SCHEMA, wrapped_algorithms, wrapped_module

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

__all__: list[str] = []


class _Package(Loader):
    """The package of one VO."""

    def __init__(self, vo: str) -> None:
        self._vo = vo

    def exec_module(self, module: ModuleType) -> None:
        from rucio_trace_policy import SUPPORTED_VERSION

        module.SUPPORTED_VERSION = SUPPORTED_VERSION  # type: ignore[attr-defined]
        module.get_algorithms = lambda: wrapped_algorithms(self._vo)  # type: ignore[attr-defined]


class _Alias(Loader):
    """Another module under this name too."""

    def __init__(self, find: Callable[[], ModuleType]) -> None:
        self._find = find

    def exec_module(self, module: ModuleType) -> None:
        sys.modules[module.__name__] = self._find()


class _Finder(MetaPathFinder):
    """Finds `vo.NAME` and what Rucio asks of a policy package."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(f"{__name__}."):
            return None
        vo, _, part = fullname.removeprefix(f"{__name__}.").partition(".")
        if not part:
            return ModuleSpec(fullname, _Package(vo), is_package=True)
        if part == "permission":
            return ModuleSpec(fullname, _Alias(lambda: _permission(vo)))
        wrapped = wrapped_module(part, vo) or (GENERIC_SCHEMA if part == "schema" else None)
        return ModuleSpec(fullname, _Alias(lambda: importlib.import_module(wrapped))) if wrapped else None


def _permission(vo: str) -> ModuleType:
    """Ours, which tells VOs apart by the issuer; a wrapped package that cannot be loaded stops Rucio here."""
    from rucio_trace_policy import permission

    permission.decider(vo)
    return permission


sys.meta_path.append(_Finder())
