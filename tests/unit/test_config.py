"""Settings: what is read, from where, and how a slip of the pen is told."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import pytest
from authority import Authority
from hypothesis import given
from hypothesis import strategies as st

from rucio_trace.archive import ArchiveLimits
from rucio_trace.config import BadOption, Limits, Settings, UnknownOption, UnreadableFile
from rucio_trace.errors import ConfigurationError
from rucio_trace.identity import Trust

ETC = Path(__file__).parents[2] / "etc"
FILE = Path("/etc/rucio-trace/x.toml")


def load(text: str) -> Settings:
    return Settings.parse(text, FILE)


def options(settings: object, section: str = "") -> dict[str, object]:
    """Every option with its value, as `section.name`."""
    found: dict[str, object] = {}
    for field in dataclasses.fields(settings):  # type: ignore[arg-type]
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            found |= options(value, f"{section}{field.name}.")
        elif section:
            found[section + field.name] = value
    return found


def flat(table: dict[str, object], section: str = "") -> set[str]:
    keys: set[str] = set()
    for key, value in table.items():
        keys |= flat(value, f"{section}{key}.") if isinstance(value, dict) else {section + key}
    return keys


def test_the_example_file_loads_and_shows_every_option_with_its_default() -> None:
    settings = Settings.load(ETC / "rucio-trace.toml")
    assert options(settings) == options(Settings())
    assert flat(tomllib.loads((ETC / "rucio-trace.toml").read_text())) == options(Settings()).keys()


def test_every_option_of_the_example_file_is_explained() -> None:
    before = ""
    for line in (ETC / "rucio-trace.toml").read_text().splitlines():
        if line and line[0] not in "#[" and before[:1] in ("", "["):
            pytest.fail(f"no comment above {line}")
        before = line


def test_the_limits_of_archives_have_one_set_of_defaults() -> None:
    assert dataclasses.asdict(Limits()) == dataclasses.asdict(ArchiveLimits())


def test_values_are_read_and_paths_belong_to_the_files_folder() -> None:
    settings = load(
        """
        [instance]
        name = "escape"
        [store]
        url = "postgresql://traces@db/traces"
        password_file = "password"
        [trust]
        anchors = ["ca.pem", "/abs/ca2.pem"]
        allow_stale_crl = true
        [recorder]
        threads = 4
        accounts = "omit"
        key = "~/key.pem"
        [recorder.service]
        provider = "ESA"
        """
    )
    assert settings.file == FILE
    assert settings.instance.name == "escape"
    assert settings.store.password_file == FILE.parent / "password"
    assert settings.trust.anchors == (FILE.parent / "ca.pem", Path("/abs/ca2.pem"))
    assert settings.trust.allow_stale_crl is True
    assert (settings.recorder.threads, settings.recorder.accounts) == (4, "omit")
    assert settings.recorder.key == Path.home() / "key.pem"
    assert settings.recorder.service.provider == "ESA"


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().instance.name = "x"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "key", "nearest"),
    [
        ("[instanc]\nname = 'x'", "instanc", "instance"),
        ("[recorder]\nthread = 1", "recorder.thread", "recorder.threads"),
        ("[recorder.service]\nkontext = 'x'", "recorder.service.kontext", "recorder.service.context"),
        ("[store]\nthreads = 1", "store.threads", "auditor.threads"),
        ("url = 'x'", "url", "store.url"),
        ("[store]\npassword = 'x'", "store.password", "store.password_file"),
        ("file = 'x'", "file", None),
        ("qqqqqq = 1", "qqqqqq", None),
    ],
)
def test_an_unknown_key_is_told_with_file_key_and_the_nearest_known(text: str, key: str, nearest: str | None) -> None:
    with pytest.raises(UnknownOption) as caught:
        load(text)
    assert (caught.value.key, caught.value.file) == (key, FILE)
    assert str(FILE) in str(caught.value)
    assert key in str(caught.value)
    if nearest:
        assert f"did you mean {nearest}?" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "instance = 1",
        "[instance]\nname = 1",
        "[recorder]\nthreads = true",
        "[recorder]\nthreads = 0",
        "[recorder]\nthreads = 1.5",
        "[recorder]\nthreads = '1'",
        "[recorder]\nlease_seconds = 1",
        "[recorder]\naccounts = 'hide'",
        "[recorder]\naccounts = 1",
        "[recorder]\nkey = 1",
        "[recorder]\nservice = 'x'",
        "[trust]\nanchors = 'ca.pem'",
        "[trust]\nanchors = [1]",
        "[trust]\nanchors = ['']",
        "[trust]\nallow_stale_crl = 'yes'",
        "[limits]\narchive_ratio = -1",
    ],
)
def test_a_value_that_cannot_be_is_told_with_what_it_should_be(text: str) -> None:
    with pytest.raises(BadOption, match=r"option .* expected .* found"):
        load(text)


def test_a_password_in_the_url_is_refused_and_not_shown() -> None:
    with pytest.raises(BadOption, match=r"password_file") as caught:
        load("[store]\nurl = 'postgresql://traces:geheim@db/traces'")
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("content", [b"[instance", b"\xff\xfe", b"a = 1\na = 2", b"\0"])
def test_a_file_that_is_no_toml_is_told(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.toml"
    file.write_bytes(content)
    with pytest.raises(UnreadableFile, match=r"x\.toml"):
        Settings.load(file)


def test_a_file_named_on_purpose_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="No such file"):
        Settings.load(tmp_path / "none")
    with pytest.raises(UnreadableFile, match="No such file"):
        Settings.load(None, {"RUCIO_TRACE_CONFIG": str(tmp_path / "none")})
    with pytest.raises(UnreadableFile, match="directory"):
        Settings.load(tmp_path)


def test_the_order_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(path: Path, name: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'[instance]\nname = "{name}"')
        return path

    environment = {"HOME": str(tmp_path)}
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "rucio-trace.toml", "the current folder's")
    assert Settings.load(None, environment).instance.name == "", "the current folder is not searched"
    write(tmp_path / ".config/rucio-trace/rucio-trace.toml", "user's")
    assert Settings.load(None, environment).instance.name == "user's"
    environment["XDG_CONFIG_HOME"] = str(tmp_path / "xdg")
    write(tmp_path / "xdg/rucio-trace/rucio-trace.toml", "xdg")
    assert Settings.load(None, environment).instance.name == "xdg"
    environment["RUCIO_TRACE_CONFIG"] = str(write(tmp_path / "v.toml", "variable's"))
    assert Settings.load(None, environment).instance.name == "variable's"
    assert Settings.load(write(tmp_path / "c.toml", "option's"), environment).instance.name == "option's"


@given(st.text())
def test_no_text_raises_anything_but_our_errors(text: str) -> None:
    try:
        load(text)
    except ConfigurationError:
        return


def test_the_example_federation_loads_and_gives_the_rights_it_explains() -> None:
    site, producer = Authority.root("Site A"), Authority.root("Producer")
    files = {"site-a-ca.pem": site.pem, "site-a.crl": site.crl(), "producer-ca.pem": producer.pem}
    trust = Trust.from_federation((ETC / "federation.toml").read_text(), files.__getitem__)
    assert [member.name for member in trust.members] == ["SITE-A", "producer"]
    assert trust.members[0].rses.match("SITE-A_DISK")
    assert not trust.members[0].create.match("s2")
    assert trust.members[1].create.match("s2")
    assert not trust.members[1].rses.match("SITE-A_DISK")


@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "a = " + "9" * 10_000, "a = 1e"])
def test_a_file_that_is_no_toml_is_a_configuration_error(text: str) -> None:
    with pytest.raises(UnreadableFile):
        Settings.parse(text, Path("/etc/x.toml"))
