"""Finding the policy package behind ours, by Rucio's own loading rules.

Rucio imports a policy package's modules one by one, when it first needs each: `permission`, `schema` and one module
per algorithm type. Ours of these names replace themselves with the wrapped package's, and are *not there* when it has
none, so Rucio's own fallbacks stay as they were; `schema` alone falls back by itself, for Rucio would warn each time.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING, Any

from rucio.common.config import config_get, config_get_bool
from rucio.common.exception import ErrorLoadingPolicyPackage, PolicyPackageNotFound
from rucio.common.plugins import check_policy_module_version

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

__all__ = [
    "GENERIC_SCHEMA",
    "become_wrapped",
    "is_multi_vo",
    "wrapped_algorithms",
    "wrapped_module",
    "wrapped_package",
    "wrapped_permission",
]


GENERIC_SCHEMA = "rucio.common.schema.generic_multi_vo"
"""What a VO without a schema of its own gets from Rucio."""


def wrapped_package(vo: str = "") -> ModuleType | None:
    """The package named in `[traceability] policy_package`, or `policy_package-VO`; None when none is named.

    Raises:
        PolicyPackageNotFound, ErrorLoadingPolicyPackage, PolicyPackageVersionError: as Rucio does for its own.
    """
    option = f"policy_package-{vo}" if vo else "policy_package"
    name = config_get("traceability", option, raise_exception=False, default="", check_config_table=False)
    if not name:
        return None
    if is_multi_vo() and not vo:
        # Rucio asks a package for schemas and algorithms without saying for which VO.
        raise ErrorLoadingPolicyPackage(
            f"{name} (wrapped by rucio_trace_policy: with several VOs set [policy] package-VO = "
            "rucio_trace_policy.vo.VO and [traceability] policy_package-VO = the VO's own)"
        )
    try:
        package = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise PolicyPackageNotFound(name) from error
    except ImportError as error:
        raise ErrorLoadingPolicyPackage(name) from error
    check_policy_module_version(package)
    return package


def wrapped_permission(vo: str = "") -> ModuleType:
    """The permission module that Rucio would use without us."""
    package = wrapped_package(vo)
    if package is not None:
        try:
            return importlib.import_module(f"{package.__name__}.permission")
        except ModuleNotFoundError:
            pass  # a package without permissions: Rucio takes its own
        except ImportError as error:
            raise ErrorLoadingPolicyPackage(f"{package.__name__}.permission") from error
    return importlib.import_module(f"rucio.core.permission.{_fallback_policy()}")


def wrapped_algorithms(vo: str = "") -> dict[str, dict[str, Callable[..., Any]]]:
    """What the wrapped package's `get_algorithms` returns."""
    package = wrapped_package(vo)
    return package.get_algorithms() if package is not None and hasattr(package, "get_algorithms") else {}


def wrapped_module(part: str, vo: str = "") -> str | None:
    """The name of the wrapped package's module *part*, if it has one."""
    package = wrapped_package(vo)
    if package is None:
        return None
    name = f"{package.__name__}.{part}"
    return name if importlib.util.find_spec(name) else None


def become_wrapped(module_name: str, fallback: str | None = None) -> None:
    """Put the wrapped package's module of the same name, or *fallback*, in the place of ours as it is being imported.

    Raises:
        ModuleNotFoundError: nothing is wrapped, or it has no such module, and there is no fallback.
    """
    own_package, _, part = module_name.rpartition(".")
    if name := wrapped_module(part):
        sys.modules[module_name] = importlib.import_module(name)
        return
    if fallback is None:
        raise ModuleNotFoundError(f"{own_package} has no {part} of its own and wraps nothing", name=module_name)
    sys.modules[module_name] = importlib.import_module(fallback)


def is_multi_vo() -> bool:
    """Whether this Rucio serves several VOs."""
    return config_get_bool("common", "multi_vo", raise_exception=False, default=False, check_config_table=False)


def _fallback_policy() -> str:
    from rucio.common.policy import get_policy

    if is_multi_vo():
        return "generic_multi_vo"
    policy = get_policy()
    return "generic" if policy == "def" else policy.lower()
