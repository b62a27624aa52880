"""The `rucio-trace` command: finds the sub-command, renders every error, decides the exit code.

Sub-commands live in modules of their own names and are imported only when used, so that
`rucio-trace --version` stays quick. A command parses, calls the library and prints; it raises
`TraceabilityError` and leaves its rendering to this module.

Exit codes are those of docs/format.md, section 7. Code 1 says "this file is not genuine" and
nothing else: an interrupt, a closed pipe, an unreadable file or a bug of ours never ends with it.
"""

from __future__ import annotations

import importlib
import inspect
import keyword
import os
import sys
import warnings
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from rucio_trace import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rucio_trace.config import Settings

__all__ = ["EXIT_UNDECIDED", "EXIT_USAGE", "cli", "main", "settings_of", "spool_folder"]

EXIT_USAGE = 2
EXIT_UNDECIDED = 3
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE

COMMANDS = {
    "hash": "Print the digests of files and of archive members.",
    "sign": "Sign a trace for each file.",
    "upload": "Upload files to Rucio, each with a signed trace.",
    "download": "Download files from Rucio, genuine ones only.",
    "verify": "Tell genuine files from tampered ones.",
    "check": "Check products against the manifests in them.",
    "history": "Show the life of a product.",
    "proof": "Show and check proofs of replicas verified in batches.",
    "who": "Tell who caused each copy and each deletion of a product.",
    "obsolete": "Say that a product should not be used any more, or take that back.",
    "revoke": "Withdraw a trace, or take a withdrawal back.",
    "search": "Find traces in the store.",
    "dataset": "Print the list of files that a dataset's trace signs.",
    "lineage": "Show what a product was made from, or what was made from it.",
    "import": "Take in traces that come with products from elsewhere.",
    "export": "Write traces in the words of others: CDSE, PROV, STAC.",
    "hooks": "Install, check and remove the hooks in Rucio's database.",
    "outbox": "Look at and mend the recorder's outbox.",
    "gaps": "Find what has no trace, and traces of what is gone.",
    "backfill": "Prove and sign an archive that is older than its traces.",
    "audit": "Have replicas read anew, and report how well they are proven.",
    "store": "Prepare and inspect the trace store.",
    "serve": "Answer over HTTP: take traces in, find them, judge by them.",
    "token": "Make and end tokens for the trace service.",
    "key": "Make signing keys and certificate requests.",
    "demo": "Run a whole federation on this machine.",
}


class LazyGroup(click.Group):
    """A click group whose sub-commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        own_name = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name
        try:
            module = importlib.import_module(f"{__name__}.{own_name}")
        except ModuleNotFoundError as error:
            raise MissingPart(cmd_name, error.name or str(error)) from error
        command = getattr(module, own_name)
        assert isinstance(command, click.Command)
        _put_example_last(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        with rendered_errors(show_traceback=ctx.params.get("traceback", False)):
            try:
                result = super().invoke(ctx)
            except ModuleNotFoundError as error:  # commands import what they need when they need it
                if ctx.params.get("traceback", False) or (error.name or "").startswith(__name__.partition(".")[0]):
                    raise
                raise MissingPart(ctx.invoked_subcommand or "", error.name or str(error)) from error
            sys.stdout.flush()
            return result


_EXAMPLE = "\b\nExample:"


def _put_example_last(command: click.Command) -> None:
    """Help texts end with their example, below the options: that is where the eye rests."""
    text, mark, example = inspect.cleandoc(command.help or "").partition(_EXAMPLE)
    if mark:
        command.help, command.epilog = text.rstrip(), _EXAMPLE + example
    if isinstance(command, click.Group):
        for each in command.commands.values():
            _put_example_last(each)


_EXTRAS = {
    "hooks": "rucio",
    "outbox": "rucio",
    "gaps": "rucio",
    "backfill": "rucio",
    "audit": "rucio",
    "demo": "sandbox",
    "upload": "client",
    "download": "client",
    "serve": "service",
    "token": "service",
}
# Modules that only a part of a command needs.
_MODULES = {"distributed": "dask", "jinja2": "report", "matplotlib": "report"}


class MissingPart(click.ClickException):
    """A sub-command needs a part of the distribution that is not installed."""

    exit_code = EXIT_UNDECIDED

    def __init__(self, command: str, module: str) -> None:
        extra = _MODULES.get(module.partition(".")[0]) or _EXTRAS.get(command)
        hint = f"; install rucio-trace[{extra}]" if extra else ""
        super().__init__(f"`{command}` needs the Python module {module}, which is not installed{hint}")


@contextmanager
def rendered_errors(*, show_traceback: bool) -> Iterator[None]:
    """Turn whatever a command raises into one clear line on stderr and an exit code."""
    try:
        yield
    except click.exceptions.Exit:
        raise
    except click.ClickException as error:
        if error.exit_code != 1:
            raise
        error.show()
        raise click.exceptions.Exit(EXIT_UNDECIDED) from None
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        raise click.exceptions.Exit(EXIT_INTERRUPTED) from None
    except BrokenPipeError:
        # Whoever read our output has gone; the interpreter must not try to flush to it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise click.exceptions.Exit(EXIT_BROKEN_PIPE) from None
    except Exception as error:  # the outermost line of the process
        if show_traceback:
            raise
        raise click.exceptions.Exit(_render(error)) from error


def _render(error: Exception) -> int:
    from rucio_trace.cli.terminal import printable
    from rucio_trace.errors import ConfigurationError, TraceabilityError

    if isinstance(error, TraceabilityError):
        message = str(error)
    elif isinstance(error, OSError):
        message = error.strerror or str(error)
        if error.filename is not None:
            message = f"{os.fsdecode(error.filename)}: {message}"
    else:
        message = f"internal error, please report it ({type(error).__name__}: {error}); --traceback shows where"
    for line in message.splitlines() or [type(error).__name__]:
        click.echo(f"rucio-trace: {printable(line, limit=None)}", err=True)
    return EXIT_USAGE if isinstance(error, ConfigurationError) else EXIT_UNDECIDED


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="rucio-trace", message="%(prog)s %(version)s")
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Read settings from FILE instead of $RUCIO_TRACE_CONFIG, the user's or the system's file.",
)
@click.option("--service", metavar="URL", help="Ask this trace service, instead of the store in the settings.")
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="RUCIO_TRACE_TOKEN_FILE",
    show_envvar=True,
    metavar="FILE",
    help="Holds the token for the trace service. The variable's is for the service in the settings alone.",
)
@click.option("--traceback", is_flag=True, help="On an internal error show the stack trace.")
def cli(config: Path | None, service: str | None, token_file: Path | None, traceback: bool) -> None:
    """Signed provenance traces for every replica in a Rucio federation.

    \b
    Example:
      rucio-trace verify product.zip --trace product.trace.json --anchors federation-ca.pem
    """


_put_example_last(cli)


def settings_of(ctx: click.Context) -> Settings:
    """The settings this process was started with; read on first use, once."""
    from rucio_trace.config import Settings

    root = ctx.find_root()
    if not isinstance(root.obj, Settings):
        settings = Settings.load(root.params.get("config"))
        given = root.get_parameter_source("token_file") is ParameterSource.COMMANDLINE
        root.obj = _with_service(settings, root.params.get("service"), root.params.get("token_file"), given=given)
    return root.obj


def _with_service(settings: Settings, service: str | None, token_file: Path | None, *, given: bool) -> Settings:
    """*settings* with what the command line says of a service.

    A token is only sent to whom it is for: that of the settings or the environment to the settings' service alone, to
    any other one that is *given* on the command line as the service is.
    """
    from rucio_trace.config import Store

    if service:
        own = service.rstrip("/") == settings.store.service.rstrip("/")
        token = (token_file if own or given else None) or (settings.store.token_file if own else None)
        return replace(settings, store=Store(service=service, token_file=token), own_service=own)
    if token_file and settings.store.service:
        return replace(settings, store=replace(settings.store, token_file=token_file))
    return settings


def spool_folder() -> Path:
    """Where commands keep what a service that is away cannot take."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "rucio-trace" / "spool"


def main() -> None:
    """Entry point of the `rucio-trace` program."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # libraries remark on strangers' odd certificates; we judge them
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us; a file of ours must not take its place
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        # A terminal that cannot show a character gets its escape, never a stack trace.
        getattr(sys, name).reconfigure(errors="backslashreplace")
    cli.main(prog_name="rucio-trace")
