"""Ways to read storage in place, one for each kind; `reader_for` picks the one for an RSE's protocol."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from rucio.rse import rsemanager

from rucio_trace_daemons.readers import gfal, http, s3, sftp, xrootd
from rucio_trace_daemons.readers.base import Reader, StorageDigest
from rucio_trace_daemons.readers.credentials import Nobody, Presigned, grid
from rucio_trace_daemons.readers.files import FileReader

if TYPE_CHECKING:
    from rucio.rse.protocols.protocol import RSEProtocol

    from rucio_trace_daemons.rses import Rse

__all__ = ["Reader", "StorageDigest", "reader_for"]


def reader_for(protocol: RSEProtocol, rse: Rse) -> Reader | None:
    """The reader for what Rucio's *protocol* reaches; None if only that protocol itself can read it."""
    scheme = protocol.attributes["scheme"]
    if scheme == "file":
        return FileReader()
    if scheme in xrootd.SCHEMES:
        return xrootd.XRootDReader()
    if scheme in http.SCHEMES:
        return _http_reader(protocol, rse)
    if scheme in s3.SCHEMES:
        return s3.S3Reader.of(rse)
    if scheme in sftp.SCHEMES and protocol.attributes["impl"].startswith("rucio.rse.protocols."):
        return sftp.SftpReader((protocol.attributes.get("extended_attributes") or {}).get("user"))
    if protocol.attributes["impl"].startswith("rucio.rse.protocols.gfal."):
        with suppress(ImportError):  # then Rucio's protocol says what is missing
            return gfal.GfalReader(protocol.auth_token)
    return None


def _http_reader(protocol: RSEProtocol, rse: Rse) -> Reader:
    info = rse.info()
    service = info.get("sign_url")
    if protocol.attributes["scheme"] == "https" and service == "s3":
        return s3.S3Reader.of(rse)
    if protocol.attributes["scheme"] == "https" and service:
        sign = getattr(rsemanager, "__get_signed_url")
        return http.HttpReader(Presigned(lambda url: sign(info["rse"], service, "read", url, rse.vo)))
    if protocol.attributes["scheme"] in ("http", "dav"):
        return http.HttpReader(Nobody())  # no secret travels without TLS
    return http.HttpReader(grid(protocol.auth_token))
