"""`trace_origin` as a client sees it: does the server know it, what has a DID, and setting it (docs/format.md, 9.4)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rucio.common.exception import DataIdentifierNotFound, InvalidMetadata, UnsupportedMetadataPlugin

from rucio_trace.envelope import parse_traces, to_json
from rucio_trace.errors import Malformed, Refuted, Undecided
from rucio_trace.joining import same_file

if TYPE_CHECKING:
    from rucio.client import Client

    from rucio_trace.envelope import Trace

__all__ = ["OriginDiffers", "OriginRefused", "Origins", "Unsupported"]

_PLUGIN = "TRACEABILITY"
_KEY = "trace_origin"


class Unsupported(Undecided):
    """The server does not keep `trace_origin` as what it is; no bytes were sent."""

    def __init__(self, found: str) -> None:
        super().__init__(
            "Rucio's server",
            expected="the metadata plugin of rucio-trace, before all others",
            found=found,
            hint="tell its operators; `rucio upload` uploads without the producer's trace",
        )


class OriginDiffers(Refuted):
    """The DID is taken: its producer spoke of other bytes."""

    def __init__(self, did: str, expected: str, found: str) -> None:
        super().__init__(f"{did}: {_KEY}", expected=expected, found=found, hint="these bytes need another name")


class OriginRefused(Refuted):
    """The server does not take our trace."""

    def __init__(self, did: str, reason: str) -> None:
        super().__init__(f"{did}: {reason}")


class Origins:
    """The origins that DIDs have in the Rucio of *client*."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._kept = False

    def check_support(self, scope: str) -> None:
        """Refuse a server whose metadata plugins lack ours.

        Raises:
            Unsupported: they do.
        """
        self._read(scope, "any")

    def known(self, scope: str, name: str, ours: Trace) -> Trace | None:
        """The origin that the DID has already, if it has one; it speaks of the file that *ours* speaks of.

        Raises:
            OriginDiffers: it does not.
        """
        did, text = f"{scope}:{name}", self._read(scope, name)
        if text is None:
            return None
        try:
            [known] = parse_traces(text.encode())
        except (Malformed, ValueError) as error:
            raise OriginDiffers(did, "a trace", str(error)) from error
        if not same_file(known.statement, ours.statement):
            raise OriginDiffers(did, known.statement.hash, ours.statement.hash)
        return known

    def set(self, scope: str, name: str, trace: Trace) -> None:
        """Make *trace* the origin of the DID.

        Raises:
            OriginRefused: the server says why not.
            Unsupported: another plugin took it for an ordinary key, which anybody may change.
        """
        text = json.dumps(to_json(trace), ensure_ascii=False, separators=(",", ":"))
        try:
            self._client.set_metadata(scope, name, _KEY, text)
        except InvalidMetadata as error:
            raise OriginRefused(f"{scope}:{name}", str(error)) from error
        if not self._kept and self._read(scope, name) is None:  # one look tells how the server is set up
            raise Unsupported(f"another plugin that takes {_KEY} for an ordinary key")
        self._kept = True

    def _read(self, scope: str, name: str) -> str | None:
        try:
            text = self._client.get_metadata(scope, name, plugin=_PLUGIN).get(_KEY)
        except DataIdentifierNotFound:
            return None
        except UnsupportedMetadataPlugin as error:
            raise Unsupported("none") from error
        return None if text is None else str(text)
