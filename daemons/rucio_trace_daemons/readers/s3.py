"""S3: the keys that Rucio signs URLs with (`rse-accounts.cfg`), used to sign each request.

So there is one transport, with its resuming, for WebDAV and S3, and signatures never stand in a URL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode, urlsplit

from rucio.common.config import get_rse_credentials
from rucio.common.exception import ErrorLoadingCredentials

from rucio_trace_daemons.readers.base import silence
from rucio_trace_daemons.readers.credentials import S3Keys
from rucio_trace_daemons.readers.http import HttpReader
from rucio_trace_daemons.readers.transport import check_answer
from rucio_trace_daemons.storage_errors import Refused, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from rucio_trace_daemons.readers.base import StorageDigest
    from rucio_trace_daemons.rses import Rse

__all__ = ["SCHEMES", "S3Reader"]

SCHEMES = frozenset({"s3", "s3s"})


class S3Reader(HttpReader):
    """Reads objects; `host_style` if the bucket is the first label of the host instead of the first folder."""

    # What a header says of an object was uploaded with it; S3 itself never encodes.
    encodings_are_stored = True

    def __init__(self, keys: S3Keys, *, host_style: bool, secure: bool = True) -> None:
        super().__init__(keys)
        silence("botocore")  # it writes down what it signs
        self._host_style, self._scheme = host_style, "https" if secure else "http"

    @classmethod
    def of(cls, rse: Rse) -> S3Reader:
        """Raises Refused or Unavailable: Rucio has no keys for *rse* that serve."""
        try:
            account: Mapping[str, Any] = get_rse_credentials()[rse.id]
            version = str(account.get("signature_version") or "s3v4")
            keys = S3Keys(
                str(account["access_key"]),
                str(account["secret_key"]),
                str(account.get("region") or "us-east-1"),
                version,
                account.get("session_token"),
            )
        except (ErrorLoadingCredentials, KeyError):
            raise Refused(f"{rse.name}, rse-accounts.cfg") from None
        if version not in ("s3", "s3v4"):
            raise Unavailable(rse.name, "signature_version in rse-accounts.cfg is neither s3v4 nor s3")
        host_style = rse.attributes.get("s3_url_style") == "host"
        if host_style and version == "s3":
            raise Unavailable(rse.name, "signature_version s3 cannot sign for s3_url_style host: use s3v4")
        return cls(keys, host_style=host_style, secure=account.get("is_secure") is not False)

    def check_folder(self, what: str, url: str) -> bool:
        """S3 has no folders: the bucket is looked into."""
        parts = urlsplit(self.private_url(url))
        bucket, _, key = parts.path.lstrip("/").partition("/")
        path, prefix = ("/", f"{bucket}/{key}".rstrip("/")) if self._host_style else (f"/{bucket}", key.rstrip("/"))
        query = urlencode({"list-type": "2", "max-keys": "1", "prefix": prefix}, quote_via=quote)
        response = self.transport.ask(what, "GET", parts._replace(path=path, query=query).geturl())
        if response.status == 403:  # who may read need not be allowed to list
            response.close()
            return False
        check_answer(what, response, 200).close()
        return True

    def digest(self, what: str, url: str, algorithms: Sequence[str]) -> StorageDigest | None:
        """None: an object's checksums were stored when it was uploaded, and those of its parts are none of the file."""
        return None

    def private_url(self, url: str) -> str:
        scheme, _, rest = url.partition("://")
        return f"{self._scheme}://{rest}" if scheme in SCHEMES else url
