"""The command as a whole: its help, its errors, its exit codes, and names that would like to do harm."""

from __future__ import annotations

import importlib
import json
import keyword
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from commands import lines, run
from hypothesis import given
from hypothesis import strategies as st

from rucio_trace import __version__
from rucio_trace.cli import COMMANDS, cli, settings_of
from rucio_trace.cli.terminal import printable, show_table

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAM = Path(sys.executable).with_name("rucio-trace")
ABC = "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"
OWN = [
    "hash",
    "sign",
    "verify",
    "check",
    "history",
    "search",
    "dataset",
    "store",
    "key",
    "lineage",
    "import",
    "export",
    "who",
    "obsolete",
    "revoke",
    "audit",
    "proof",
    "gaps",
    "backfill",
]


def program(*arguments: str | bytes, **options: object) -> subprocess.CompletedProcess[bytes]:
    """Run the installed program in a process of its own."""
    environment = {**os.environ, "RUCIO_TRACE_CONFIG": "/dev/null"}
    return subprocess.run([PROGRAM, *arguments], capture_output=True, env=environment, check=False, **options)  # type: ignore[call-overload,no-any-return]


def commands(group: click.Group, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    context = click.Context(group)
    found: list[tuple[str, ...]] = []
    for name in group.list_commands(context):
        if not prefix and name not in OWN:
            continue
        command = group.get_command(context, name)
        found.append((*prefix, name))
        if isinstance(command, click.Group):
            found += commands(command, (*prefix, name))
    return found


def test_version() -> None:
    result = program("--version")
    assert (result.returncode, result.stdout.decode()) == (0, f"rucio-trace {__version__}\n")


def test_the_version_is_told_without_importing_what_commands_need() -> None:
    code = "import sys, rucio_trace.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"cryptography", "sqlalchemy", "rich", "blake3", "rucio"} & {name.partition(".")[0] for name in loaded}


@pytest.mark.parametrize(
    "arguments",
    [("hooks", "status"), ("outbox", "status"), ("audit", "status"), ("gaps",), ("backfill", "--rses", "A")],
)
def test_a_command_that_needs_rucio_says_so_where_there_is_none(arguments: tuple[str, ...]) -> None:
    code = "import sys; sys.modules['rucio'] = None; from rucio_trace.cli import main; main()"
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert result.returncode == 3
    assert "rucio-trace[rucio]" in result.stderr
    assert "internal error" not in result.stderr


def test_commands_that_need_a_rucio_cfg_say_so_where_there_is_none(tmp_path: Path) -> None:
    code = """
import sys
from rucio_trace.cli import main
for arguments in (["outbox", "status"], ["gaps"], ["backfill", "--rses", "X"]):
    sys.argv[1:] = arguments
    try:
        main()
    except SystemExit as end:
        print(end.code)
"""
    environment = {**os.environ, "RUCIO_HOME": str(tmp_path), "HOME": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.stdout.split() == ["2"] * 3, result.stderr
    assert result.stderr.count("expected the database of a Rucio server") == 3, result.stderr


@pytest.mark.parametrize("name", OWN)
def test_a_command_is_introduced_as_it_introduces_itself(name: str) -> None:
    own_name = f"{name}_" if keyword.iskeyword(name) else name
    command = getattr(importlib.import_module(f"rucio_trace.cli.{own_name}"), own_name)
    assert command.name == name
    assert name in COMMANDS
    assert run(name, "--help", code=0).stdout.startswith(f"Usage: cli {name}")


@pytest.mark.parametrize("path", [(), *commands(cli)], ids=" ".join)
def test_every_help_text_ends_with_an_example(path: tuple[str, ...]) -> None:
    text, _, example = run(*path, "--help", code=0).stdout.rpartition("\n\n  Example:\n")
    assert re.fullmatch(r"(    (\w+=\S+ )*rucio-trace .*\n)+", example)
    for option in re.findall(r" (--[a-z-]+)", example):
        assert not path or option in text


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["hash"],
        ["hash", "--algorithm", "CRC32", "x"],
        ["--config", "/nonexistent.toml", "history", "s:n"],
        ["verify"],
        ["verify", "x", "--trace", "/nonexistent"],
        ["sign", "x"],
        ["history"],
        ["history", "no-colon"],
        ["search", "--since", "yesterday"],
        ["search", "--limit", "0"],
        ["search", "--event", "PARTY"],
        ["key"],
        ["key", "request", "/nonexistent", "--name", "x"],
        ["who", "no-colon"],
        ["obsolete", "s:n"],
        ["obsolete", "s:n", "--reason", " "],
        ["obsolete", "n", "--reason", "x"],
        ["obsolete", "s:n", "--reason", "x", "--replaced-by", "n"],
        ["obsolete", "s:n", "--reason", "x", "--replaced-by", "s:n"],
        ["obsolete", "s:n", "--undo", "--replaced-by", "s:m"],
        ["revoke", "00000000-0000-4000-8000-000000000000"],
        ["revoke", "00000000-0000-4000-8000-000000000000", "--reason", "x"],  # nobody is trusted
        ["history", "s:n"],  # no store is configured
        ["audit", "start"],
        ["audit", "start", "--rses", "*", "--every", "soon"],
        ["audit", "start", "--rses", "*", "--sample", "2"],
        ["audit", "stop", "first"],
        ["audit", "report", "--overdue", "1"],
        ["audit", "reset", "XRD-A"],
        ["audit", "declare"],
        ["audit", "declare", "--rses", "XRD-A", "--last-copy"],
        ["backfill"],
        ["backfill", "--rses", "A", "--dask", "tcp://here:1", "--processes", "2"],
    ],
    ids=" ".join,
)
def test_wrong_use_ends_with_2_and_a_clear_message(arguments: list[str]) -> None:
    result = run(*arguments, code=2)
    assert result.stderr.strip()
    assert not result.stdout or "Usage" in result.stdout


@pytest.mark.parametrize(
    ("asked", "by_hand", "token"),
    [
        (None, None, "variable"),
        ("https://own.example.org/", None, "variable"),
        ("https://other.example.org", None, None),
        ("https://other.example.org", "by-hand", "by-hand"),
        ("https://own.example.org", "by-hand", "by-hand"),
    ],
)
def test_a_token_is_only_for_the_service_that_it_was_named_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str | None, by_hand: str | None, token: str | None
) -> None:
    (tmp_path / "settings.toml").write_text('[store]\nservice = "https://own.example.org"\ntoken_file = "settings"\n')
    monkeypatch.setenv("RUCIO_TRACE_TOKEN_FILE", "variable")
    options = {"--config": str(tmp_path / "settings.toml"), "--service": asked, "--token-file": by_hand}
    arguments = [part for option in options.items() if option[1] for part in option if part]
    found = settings_of(cli.make_context("rucio-trace", [*arguments, "search"])).store.token_file
    assert found == (None if token is None else Path(token))


def test_hash_prints_what_b3sum_would(tmp_path: Path) -> None:
    file = tmp_path / "abc.txt"
    file.write_bytes(b"abc")
    assert run("hash", file, code=0).stdout == f"{ABC}  {file}\n"
    two = run("hash", "-a", "ADLER32", "-a", "blake3", file, code=0).stdout.splitlines()
    assert two == [f"ADLER32 024d0127  {file}", f"BLAKE3  {ABC}  {file}"]


def test_hash_lists_the_members_of_archives() -> None:
    vectors = Path(__file__).parents[1] / "vectors" / "archives"
    trace = json.loads((vectors / "zip-contents.json").read_text())[0]["product"]
    file = vectors / trace["name"]
    (found,) = lines(run("hash", "--contents", "--json", file, code=0))
    assert found["file"] == str(file)
    assert found["hashes"] == {"BLAKE3": trace["hash"]}
    assert {m["path"]: m["hashes"]["BLAKE3"] for m in found["contents"]} == {
        content["path"]: content["hash"] for content in trace["contents"]
    }
    text = run("hash", "--contents", file, code=0).stdout.splitlines()
    assert len(text) == 1 + len(trace["contents"])
    assert text[1].startswith("  ")


def test_every_file_gets_a_line_and_one_failure_does_not_stop_the_others(tmp_path: Path) -> None:
    good = tmp_path / "good"
    good.write_bytes(b"abc")
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"PK\x03\x04")
    files = [tmp_path / "none", tmp_path, broken, good]
    result = run("hash", "--contents", *files, code=3)
    assert result.stdout == f"{ABC}  {good}\n"
    assert [str(file) in line for file, line in zip(files, result.stderr.splitlines(), strict=False)] == [True] * 3
    assert "pack it" in result.stderr
    found = lines(run("hash", "--json", *files, code=3))
    assert [item["file"] for item in found] == [str(file) for file in files]
    assert "error" in found[0]


def test_limits_of_the_settings_hold(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text("[limits]\narchive_members = 2")
    (vector,) = (Path(__file__).parents[1] / "vectors" / "archives").glob("S2A*.zip")
    assert "limits.archive_members" in run("hash", "--contents", vector, config=config, code=3).stderr


HOSTILE = {
    "newline": "a\nGENUINE",
    "escape sequence": "a\x1b[2J\x1b]0;owned\x07",
    "carriage return": "bad\rgood",
    "right to left": "a\u202egpj.exe",
    "zero width": "a\u200bb",
    "C1 control": "a\x9b31m",
    "line separator": "a\u2028b",
    "private use": "a\ue000",
    "no UTF-8": os.fsdecode(b"a\xff\xfe"),
    "long": "x" * 255,
}


@pytest.mark.parametrize("kind", list(HOSTILE))
@pytest.mark.parametrize("command", ["hash", "verify"])
def test_hostile_names_are_shown_harmlessly(tmp_path: Path, kind: str, command: str) -> None:
    file = tmp_path / HOSTILE[kind]
    file.write_bytes(b"abc")
    for name in (str(file), f"{file}-missing"):
        result = run(command, name)
        assert result.exit_code in (0, 3)
        for text in (result.stdout, result.stderr):
            assert all(printable(line, limit=None) == line for line in text.split("\n"))
            assert "GENUINE" not in text.split("\n")
        as_json = run(command, "--json", name)
        assert json.loads(as_json.stdout)["file"] == name
        assert as_json.stdout.isascii()


def test_a_name_that_is_no_utf8_survives_a_real_process(tmp_path: Path) -> None:
    file = tmp_path / HOSTILE["no UTF-8"]
    file.write_bytes(b"abc")
    assert program("hash", os.fsencode(file)).stdout.decode().endswith("a\\xff\\xfe\n")
    assert json.loads(program("hash", "--json", os.fsencode(file)).stdout)["file"] == str(file)


@given(st.text(st.characters(), max_size=50))
def test_printable_text_is_one_harmless_line(text: str) -> None:
    shown = printable(text)
    assert shown.encode("utf-8").decode().isprintable()
    assert printable(shown) == shown
    if text.isprintable():
        assert shown == text


def test_a_name_of_a_thousand_characters_is_shortened_in_its_middle() -> None:
    shown = printable("a" * 500 + "b" * 500)
    assert len(shown) < 310
    assert shown[0] == "a"
    assert shown[-1] == "b"


def test_a_terminal_that_knows_no_unicode_gets_escapes(tmp_path: Path) -> None:
    file = tmp_path / "ü€"
    file.write_bytes(b"abc")
    environment = {"PATH": os.environ["PATH"], "PYTHONIOENCODING": "latin-1", "RUCIO_TRACE_CONFIG": "/dev/null"}
    result = subprocess.run([PROGRAM, "hash", file], capture_output=True, env=environment, check=False)
    assert result.returncode == 0
    assert b"\xfc\\u20ac" in result.stdout


def test_a_reader_that_goes_away_is_no_verdict(tmp_path: Path) -> None:
    file = tmp_path / "abc"
    file.write_bytes(b"abc")
    environment = {**os.environ, "RUCIO_TRACE_CONFIG": "/dev/null"}
    read_end, write_end = os.pipe()
    os.close(read_end)
    with subprocess.Popen(
        [PROGRAM, "hash", *[file] * 2_000], stdout=write_end, stderr=subprocess.PIPE, env=environment
    ) as p:
        os.close(write_end)
        _, errors = p.communicate()
    assert p.returncode == 141
    assert errors == b""


def test_an_interrupt_is_no_verdict(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    environment = {**os.environ, "RUCIO_TRACE_CONFIG": "/dev/null"}
    with (
        subprocess.Popen([PROGRAM, "hash", pipe], stderr=subprocess.PIPE, env=environment) as p,
        pipe.open("wb"),  # opens when the program reads
    ):
        p.send_signal(2)
        _, errors = p.communicate()
    assert p.returncode == 130
    assert errors.decode().strip() == "interrupted"


def test_a_bug_of_ours_is_no_verdict_and_shows_no_stack_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    command = click.Command("history", callback=lambda: 1 // 0)
    monkeypatch.setattr("rucio_trace.cli.LazyGroup.get_command", lambda *_: command)
    result = run("history", code=3)
    assert "internal error" in result.stderr
    with pytest.raises(ZeroDivisionError):
        run("--traceback", "history")


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What a terminal of some width shows of a table of one row."""

    def show(width: int, columns: tuple[str, ...], row: tuple[object, ...]) -> str:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", str(width))
        show_table(columns, [row])
        return re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)

    return show


def test_in_a_narrow_terminal_long_cells_are_folded_and_names_and_times_stay_whole(shown: Callable[..., str]) -> None:
    row = ("2026-11-25T22:18:27Z", "CORRUPT", "SITE-A_DISK", "x" * 300)
    for width, whole in ((80, row[:3]), (60, row[1:3])):
        text = shown(width, ("time", "event", "RSE", "how"), row)
        assert all(re.search(rf" {re.escape(cell)} ", text) for cell in whole), text
        assert text.count("x") == 300
        assert max(map(len, text.splitlines())) <= width


def test_where_a_table_has_no_room_each_row_is_a_paragraph(shown: Callable[..., str]) -> None:
    columns = tuple(f"column {number}" for number in range(8))
    row = ("SITE-A_DISK", None, *range(2, 8))
    assert re.fullmatch(r"column 0 +SITE-A_DISK *\n(column [2-7] +[2-7] *\n){6}\n", shown(80, columns, row))
    assert len(re.findall("column", shown(120, columns, row).splitlines()[1])) == 8
