"""Tokens: made, found, rotated and revoked, in a file that never holds one."""

from __future__ import annotations

import json
import stat
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from commands import lines, run

from rucio_trace.errors import ConfigurationError
from rucio_trace.service.access import Access, Role
from rucio_trace.service.problems import Unauthenticated
from rucio_trace.service.tokens import TokenFile, Tokens

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new folder" / "tokens.json"


@pytest.fixture
def file(path: Path) -> TokenFile:
    return TokenFile(path)


def test_a_token_is_found_by_itself_and_by_nothing_else(file: TokenFile, path: Path) -> None:
    token = file.create("name", "SITE", [Role.REGISTER, Role.READ], NOW)
    find = Tokens(path)
    holder = find(token)
    assert holder is not None
    assert (holder.name, holder.provider, holder.roles) == ("name", "SITE", {Role.REGISTER, Role.READ})
    for wrong in ("", token[:-1], token + "x", token.upper(), "\udc80", file.entries()[0].sha256):
        assert find(wrong) is None


def test_the_file_is_its_owners_alone_and_holds_no_token(file: TokenFile, path: Path) -> None:
    token = file.create("name", "SITE", [Role.READ], NOW)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for each in path.parent.iterdir():
        assert token not in each.read_text()
        assert token.removeprefix("rt_") not in each.read_text()
    assert sorted(each.name for each in path.parent.iterdir()) == ["tokens.json", "tokens.json.lock"]


def test_a_lock_that_another_user_made_is_named(file: TokenFile, path: Path) -> None:
    path.parent.mkdir()
    path.with_name("tokens.json.lock").mkdir()  # root may open any file, but no folder
    with pytest.raises(ConfigurationError, match=r"tokens.json.lock.*service's user"):
        file.create("a", "SITE", [Role.READ], NOW)


def test_a_running_service_follows_the_file(file: TokenFile, path: Path) -> None:
    find = Tokens(path)
    assert find("rt_x") is None, "there is no file yet"
    first = file.create("a", "SITE", [Role.READ], NOW)
    assert find(first)
    second = file.create("b", "SITE", [Role.READ], NOW)
    assert find(second)
    file.revoke("a")
    assert find(first) is None
    assert find(second)
    path.unlink()
    assert find(second) is None


def test_rotating_ends_the_old_token_after_its_grace(file: TokenFile, path: Path) -> None:
    old = file.create("a", "SITE", [Role.READ], NOW)
    new = file.rotate("a", HOUR, NOW)
    find = Tokens(path)
    assert find(old)
    assert find(new)
    newest = file.rotate("a", timedelta(0), NOW)
    assert [find(token) is not None for token in (old, new, newest)] == [False, False, True]


def test_a_grace_that_is_over_is_over(file: TokenFile, path: Path) -> None:
    old = file.create("a", "SITE", [Role.READ], NOW - 3 * HOUR)
    file.rotate("a", HOUR, NOW - 2 * HOUR)
    assert Tokens(path)(old) is None
    assert len(file.entries()) == 2
    file.rotate("a", HOUR, NOW)
    assert [entry.until is None for entry in file.entries()] == [False, True], "what has ended is forgotten"


def test_a_later_grace_never_prolongs_an_earlier_one(file: TokenFile) -> None:
    file.create("a", "SITE", [Role.READ], NOW)
    file.rotate("a", HOUR, NOW)
    file.rotate("a", 5 * HOUR, NOW)
    assert next(entry.until for entry in file.entries()) == NOW + HOUR


def test_revoking_ends_all_of_a_name(file: TokenFile, path: Path) -> None:
    tokens = [file.create("a", "SITE", [Role.READ], NOW), file.rotate("a", HOUR, NOW)]
    file.revoke("a")
    assert not any(map(Tokens(path), tokens))


@pytest.mark.parametrize(
    ("name", "provider"), [("", "P"), ("a", ""), ("a" * 65, "P"), ("a", "P" * 65), ("a\n", "P"), ("a", "\x1b[2J")]
)
def test_names_are_short_and_printable(file: TokenFile, name: str, provider: str) -> None:
    with pytest.raises(ConfigurationError):
        file.create(name, provider, [Role.READ], NOW)


def test_a_name_is_taken_once_and_an_unknown_one_is_none(file: TokenFile) -> None:
    file.create("a", "SITE", [Role.READ], NOW)
    with pytest.raises(ConfigurationError, match="a new name"):
        file.create("a", "OTHER", [Role.READ], NOW)
    for change in (lambda: file.revoke("b"), lambda: file.rotate("b", HOUR, NOW)):
        with pytest.raises(ConfigurationError, match="token list"):
            change()
    assert [entry.name for entry in file.entries()] == ["a"]


def test_many_may_change_the_file_at_once(file: TokenFile) -> None:
    threads = [
        threading.Thread(target=file.create, args=(f"n{number}", "SITE", [Role.READ], NOW)) for number in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({entry.name for entry in file.entries()}) == 20


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"tokens": 3}', '{"tokens": [3]}', '{"tokens": [{"name": "a"}]}', "\0", "{" * 10_000],
)
def test_a_file_that_is_none_is_an_error_and_never_no_tokens(file: TokenFile, path: Path, content: str) -> None:
    token = file.create("a", "SITE", [Role.READ], NOW)
    find = Tokens(path)
    path.write_text(content)
    with pytest.raises(ConfigurationError, match="a file of tokens"):
        find(token)
    with pytest.raises(ConfigurationError):
        Tokens(path)
    with pytest.raises(ConfigurationError):
        file.create("b", "SITE", [Role.READ], NOW)
    assert path.read_text() == content


def test_an_unknown_key_or_role_is_an_error(file: TokenFile, path: Path) -> None:
    file.create("a", "SITE", [Role.READ], NOW)
    known = json.loads(path.read_text())["tokens"][0]
    for wrong in ({**known, "rolse": []}, {**known, "roles": ["admin"]}):
        path.write_text(json.dumps({"tokens": [wrong]}))
        with pytest.raises(ConfigurationError):
            Tokens(path)


def test_only_bearer_tokens_say_who_calls(file: TokenFile, path: Path) -> None:
    token = file.create("a", "SITE", [Role.READ], NOW)
    access = Access(Tokens(path), frozenset())
    assert access.identify(f"bearer  {token} ").name == "a"
    for header in (token, f"Basic {token}", "Bearer", "Bearer ", ""):
        with pytest.raises(Unauthenticated) as caught:
            access.identify(header)
        assert token not in str(caught.value)


def test_the_commands_make_list_rotate_and_revoke(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text('[service]\ntokens = "t.json"\n')
    made = run("token", "create", "a", "--provider", "P", "--role", "register", "--role", "read", config=config, code=0)
    (token,) = made.stdout.split()
    assert len(token) >= 43
    assert Tokens(tmp_path / "t.json")(token)
    (listed,) = lines(run("token", "list", "--json", config=config, code=0))
    assert (listed["name"], listed["provider"], listed["roles"]) == ("a", "P", "read, register")
    rotated = run("token", "rotate", "a", "--grace", "60", config=config, code=0).stdout.strip()
    assert all(map(Tokens(tmp_path / "t.json"), (token, rotated)))
    for shown in (run("token", "list", config=config, code=0).output, (tmp_path / "t.json").read_text()):
        assert token not in shown
        assert rotated not in shown
    run("token", "revoke", "a", config=config, code=0)
    assert lines(run("token", "list", "--json", config=config, code=0)) == []
    assert run("token", "revoke", "a", config=config).exit_code == 2
    run("token", "create", "a", "--provider", "P", config=config, code=2)
