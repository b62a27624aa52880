"""With what we show ourselves to storage over HTTP: what Rucio's own daemons would show.

Secrets live in these objects alone; `repr` shows none of them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote, urlsplit

from rucio.common.utils import wlcg_token_discovery

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Bearer", "Credentials", "Nobody", "Presigned", "S3Keys", "grid"]


class Credentials(Protocol):
    """How requests to one storage are made ours."""

    @property
    def certificate(self) -> str | None:
        """The file of a client certificate with its key."""

    def url(self, url: str) -> str:
        """What to ask for instead of *url*; called for every new request, because signatures end."""

    def headers(self, method: str, url: str) -> Mapping[str, str]:
        """What to send along to the storage itself, and to no other host."""


@dataclass(frozen=True, slots=True)
class Nobody:
    certificate: str | None = None

    def url(self, url: str) -> str:
        return url

    def headers(self, method: str, url: str) -> Mapping[str, str]:
        return {}


@dataclass(frozen=True, slots=True)
class Bearer:
    """A token."""

    token: str = field(repr=False)
    certificate: str | None = None

    def url(self, url: str) -> str:
        return url

    def headers(self, method: str, url: str) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@dataclass(frozen=True, slots=True)
class Presigned:
    """URLs that Rucio signs, for reading one file for ten minutes; nothing else may be sent with them."""

    sign: Callable[[str], str] = field(repr=False)
    certificate: str | None = None

    def url(self, url: str) -> str:
        return self.sign(url)

    def headers(self, method: str, url: str) -> Mapping[str, str]:
        return {}


@dataclass(frozen=True, slots=True)
class S3Keys:
    """The keys of an RSE in Rucio's `rse-accounts.cfg`, by which each request is signed."""

    access_key: str
    secret_key: str = field(repr=False)
    region: str
    version: str = "s3v4"
    session_token: str | None = field(default=None, repr=False)
    certificate: str | None = None

    def url(self, url: str) -> str:
        """The URL in the spelling that is signed."""
        parts = urlsplit(url)
        return parts._replace(path=quote(parts.path, safe="/~")).geturl()

    def headers(self, method: str, url: str) -> Mapping[str, str]:
        from botocore.auth import HmacV1Auth, S3SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials as Keys

        keys = Keys(self.access_key, self.secret_key, self.session_token)
        request = AWSRequest(method, url)
        auth = HmacV1Auth(keys) if self.version == "s3" else S3SigV4Auth(keys, "s3", self.region)
        auth.add_auth(request)
        return dict(request.headers.items())


def grid(token: str | None) -> Credentials:
    """What a daemon of Rucio has: the token Rucio asked for, else its proxy certificate, else a token it was given."""
    if token:
        return Bearer(token)
    proxy = os.environ.get("X509_USER_PROXY") or f"/tmp/x509up_u{os.geteuid()}"  # noqa: S108 where proxies lie
    if Path(proxy).is_file():
        return Nobody(proxy)
    found = wlcg_token_discovery()
    return Bearer(found) if found else Nobody()
