"""Settings: one TOML file, read once, handed on as frozen values.

Importing this module reads nothing. A relative path in the file is relative to the file's folder;
a secret is always the path of a file that holds it. `etc/rucio-trace.toml` explains every option.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from rucio_trace.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Alarms",
    "Auditor",
    "BadOption",
    "Instance",
    "Limits",
    "Metrics",
    "Producer",
    "Recorder",
    "Service",
    "ServiceContext",
    "Settings",
    "Store",
    "Trust",
    "UnknownOption",
    "UnreadableFile",
]

SYSTEM_FILE = Path("/etc/rucio-trace/rucio-trace.toml")
VARIABLE = "RUCIO_TRACE_CONFIG"

T = TypeVar("T")


class UnreadableFile(ConfigurationError):
    """The settings file cannot be read, or is no TOML."""

    def __init__(self, file: Path, reason: str) -> None:
        super().__init__(str(file), expected="a TOML file", found=reason)
        self.file = file


class UnknownOption(ConfigurationError):
    """A key that no part of this program reads: a slip of the pen would otherwise pass unseen."""

    def __init__(self, file: Path, key: str, nearest: str | None) -> None:
        super().__init__(f"{file}: unknown option {key}", hint=f"did you mean {nearest}?" if nearest else "")
        self.file, self.key, self.nearest = file, key, nearest


class BadOption(ConfigurationError):
    """A known key with a value that it cannot take."""

    def __init__(self, file: Path, key: str, expected: str, found: object) -> None:
        super().__init__(f"{file}: option {key}", expected=expected, found=repr(found))
        self.file, self.key = file, key


def _at_least(default: int, minimum: int = 1) -> Any:
    return field(default=default, metadata={"minimum": minimum})


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """Which Rucio this is: the first two parts of every product (docs/format.md, section 1)."""

    name: str = ""
    vo: str = "def"


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """Where traces are kept: in a database of one's own, or by a service."""

    url: str = ""
    password_file: Path | None = None
    service: str = ""
    token_file: Path | None = None

    @property
    def named(self) -> bool:
        """Whether there is one."""
        return bool(self.url or self.service)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Whose signatures count (docs/format.md, section 6)."""

    federation: Path | None = None
    anchors: tuple[Path, ...] = ()
    crls: tuple[Path, ...] = ()
    allow_stale_crl: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an archive may make us do before it is called a bomb."""

    archive_members: int = _at_least(100_000)
    archive_bytes: int = _at_least(4 * 1024**4)
    archive_ratio: int = _at_least(500)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceContext:
    """What the trace's `service` says: the words of the Traceability Service."""

    context: str = ""
    type: str = ""
    provider: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorder:
    """How replicas are observed and signed."""

    site: str = ""
    key: Path | None = None
    key_password_file: Path | None = None
    certificate: Path | None = None
    rses: str = "*"
    threads: int = _at_least(1)
    bulk: int = _at_least(100)
    sleep_seconds: int = _at_least(10, 0)
    lease_seconds: int = _at_least(600, 10)
    lost_after_seconds: int = _at_least(3_600, 0)
    lost_in_a_row: int = _at_least(20)
    staging_folder: Path | None = None
    staging_bytes: int = _at_least(20 * 1024**3)
    contents: bool = True
    datasets: Literal["sign", "leave", "exclude"] = "sign"
    accounts: Literal["keep", "pseudonym", "omit"] = "pseudonym"
    accounts_key: Path | None = None
    service: ServiceContext = ServiceContext()


@dataclass(frozen=True, slots=True, kw_only=True)
class Auditor:
    """How replicas are read again, in turn; site and key are the recorder's."""

    rses: str = "*"
    threads: int = _at_least(1)
    bulk: int = _at_least(100)
    sleep_seconds: int = _at_least(60, 0)
    lease_seconds: int = _at_least(600, 10)
    batch_seconds: int = _at_least(600, 0)
    quiet_hours: str = ""
    declare: bool = False
    account: str = "root"
    bad_in_a_row: int = _at_least(10)
    bad_percent: int = _at_least(10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Producer:
    """Who signs what `upload` brings."""

    site: str = ""
    key: Path | None = None
    key_password_file: Path | None = None
    certificate: Path | None = None
    contents: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarms:
    """How alarms are grouped, and whom Rucio's Hermes shall write to."""

    window_seconds: int = _at_least(3_600)
    email: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Where a daemon serves its metrics; port 0: nowhere."""

    port: int = _at_least(0, 0)
    address: str = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """How `rucio-trace serve` answers."""

    address: str = "127.0.0.1"
    port: int = _at_least(8085, 0)
    workers: int = _at_least(1)
    tokens: Path | None = None
    private: tuple[str, ...] = ()
    certificate: Path | None = None
    key: Path | None = None
    max_body_bytes: int = _at_least(64 * 1024**2, 1024)
    max_silence_seconds: int = _at_least(30)
    max_body_seconds: int = _at_least(600)
    max_waiting_traces: int = _at_least(20_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything the programs can be told; `file` is None when no file was found and all is default.

    `own_service` says that the service is the operator's: it stands in the file, and not on a command line.
    """

    instance: Instance = Instance()
    store: Store = Store()
    trust: Trust = Trust()
    limits: Limits = Limits()
    auditor: Auditor = Auditor()
    recorder: Recorder = Recorder()
    producer: Producer = Producer()
    alarms: Alarms = Alarms()
    metrics: Metrics = Metrics()
    service: Service = Service()
    file: Path | None = field(default=None, metadata={"internal": True})
    own_service: bool = field(default=True, metadata={"internal": True})

    @classmethod
    def load(cls, path: Path | None = None, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read *path*, else the first of $RUCIO_TRACE_CONFIG, the user's file, the system's; none: all defaults.

        The current folder is not searched: whoever fills the folder of a product to be verified
        must not choose whom the verifier trusts.
        """
        file = path or _find_file(environment)
        if file is None:
            return cls()
        try:
            return cls.parse(file.read_text(encoding="utf-8"), file.absolute())
        except OSError as error:
            raise UnreadableFile(file, error.strerror or str(error)) from error
        except UnicodeDecodeError as error:
            raise UnreadableFile(file, f"byte {error.start} is no UTF-8") from error

    @classmethod
    def parse(cls, text: str, file: Path) -> Settings:
        """The settings that *text*, the content of *file*, stands for; reads no other file."""
        try:
            document = tomllib.loads(text)
        except (ValueError, RecursionError) as error:  # not all that tomllib refuses is a TOMLDecodeError
            raise UnreadableFile(file, str(error)) from error
        settings = _build(cls, document, file, ())
        _check_store(settings.store, file)
        return replace(settings, file=file)


def _find_file(environment: Mapping[str, str]) -> Path | None:
    if named := environment.get(VARIABLE):
        return Path(named)  # named on purpose: if it is missing, that is an error
    home = environment.get("XDG_CONFIG_HOME") or (
        Path(environment["HOME"]) / ".config" if "HOME" in environment else None
    )
    candidates = [Path(home) / "rucio-trace" / "rucio-trace.toml"] if home else []
    return next((file for file in [*candidates, SYSTEM_FILE] if file.is_file()), None)


def _check_store(store: Store, file: Path) -> None:
    if store.url and store.service:
        raise BadOption(file, "store.service", "nothing where store.url names a database", store.service)
    authority = store.url.partition("://")[2].partition("/")[0]
    user = authority.rpartition("@")[0]
    if ":" in user:
        shown = store.url.replace(user, user.partition(":")[0] + ":***", 1)
        raise BadOption(file, "store.url", "without a password: name a file with it in store.password_file", shown)


def _build(kind: type[T], table: Mapping[str, Any], file: Path, section: tuple[str, ...]) -> T:
    """An instance of the dataclass *kind* from a TOML table; anything unknown or ill-typed is refused."""
    hints = get_type_hints(kind)
    known = {f.name: f for f in fields(kind) if not f.metadata.get("internal")}  # type: ignore[arg-type]
    values = {}
    for name, value in table.items():
        key = ".".join((*section, name))
        if name not in known:
            raise UnknownOption(file, key, _nearest(key))
        values[name] = _convert(hints[name], value, file, key, known[name].metadata.get("minimum"))
    return kind(**values)


def _convert(kind: Any, value: Any, file: Path, key: str, minimum: int | None) -> Any:
    if isinstance(kind, type) and is_dataclass(kind):
        if not isinstance(value, dict):
            raise BadOption(file, key, "a table", value)
        return _build(kind, value, file, tuple(key.split(".")))
    if isinstance(kind, UnionType):  # Path | None: an empty string leaves it unset
        return _convert(get_args(kind)[0], value, file, key, minimum) if value != "" else None
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise BadOption(file, key, "one of " + ", ".join(get_args(kind)), value)
        return value
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise BadOption(file, key, "an array", value)
        return tuple(_convert(get_args(kind)[0], item, file, key, minimum) for item in value)
    return _convert_scalar(kind, value, file, key, minimum)


def _convert_scalar(kind: Any, value: Any, file: Path, key: str, minimum: int | None) -> Any:
    if kind is Path:
        if not isinstance(value, str) or not value or "\0" in value:
            raise BadOption(file, key, "the path of a file", value)
        return file.parent / Path(value).expanduser()
    if type(value) is not kind:  # exactly: TOML's true is no integer
        names: dict[type, str] = {str: "a text", int: "a whole number", bool: "true or false"}
        raise BadOption(file, key, names[kind], value)
    if minimum is not None and value < minimum:
        raise BadOption(file, key, f"at least {minimum}", value)
    return value


_SECTIONS = frozenset(f.name for f in fields(Settings) if not f.metadata)


def _option_names(kind: Any = None, section: str = "") -> list[str]:
    """Every option as `section.name`, sections too."""
    names = []
    for name, hint in get_type_hints(kind or Settings).items():
        if section or name in _SECTIONS:
            names.append(section + name)
            if is_dataclass(hint):
                names += _option_names(hint, f"{section}{name}.")
    return names


def _nearest(key: str) -> str | None:
    """The known option most like *key*, be the slip in its section or in its name."""
    names = _option_names()
    if found := difflib.get_close_matches(key, names, n=1, cutoff=0.6):
        return found[0]
    by_last_part = {name.rpartition(".")[2]: name for name in names}
    found = difflib.get_close_matches(key.rpartition(".")[2], list(by_last_part), n=1, cutoff=0.6)
    return by_last_part[found[0]] if found else None
