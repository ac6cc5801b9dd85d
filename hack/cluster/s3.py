"""The S3 endpoint of the cluster, and just enough of the protocol to know that it works.

"The port is open" is not "the store takes objects": SeaweedFS answers InternalError for a while after its start. So
ready means that a signed PUT was answered with 200. Signature version 4 is a page of the standard library's hmac; the
real clients live in the runner.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import http.client
import urllib.parse
from dataclasses import dataclass


@dataclass(frozen=True)
class S3Endpoint:
    """Where objects go and who may write them. Written to `.dev/cluster/s3.json` with these names."""

    endpoint: str
    region: str
    bucket: str
    accessKey: str  # noqa: N815 - the names are the file's
    secretKey: str  # noqa: N815

    def takes_writes(self) -> bool:
        """Create the bucket if it is not there, and try to write an object."""
        try:
            self._put(f"/{self.bucket}", b"")
            return self._put(f"/{self.bucket}/.ready", b"ready") == 200
        except (OSError, http.client.HTTPException):
            return False

    def _put(self, path: str, body: bytes) -> int:
        host = urllib.parse.urlsplit(self.endpoint).netloc
        connection = http.client.HTTPConnection(host, timeout=10)
        try:
            connection.request("PUT", path, body, sign_put(self, path=path, host=host, body=body, now=_now()))
            return connection.getresponse().status
        finally:
            connection.close()


def sign_put(endpoint: S3Endpoint, *, path: str, host: str, body: bytes, now: datetime.datetime) -> dict[str, str]:
    """Headers that sign a PUT of `body` to `path` (AWS Signature Version 4, path style, no query)."""
    stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    digest = hashlib.sha256(body).hexdigest()
    headers = {"host": host, "x-amz-content-sha256": digest, "x-amz-date": stamp}
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    request = f"PUT\n{path}\n\n{lines}\n{names}\n{digest}"
    scope = f"{day}/{endpoint.region}/s3/aws4_request"
    to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{endpoint.secretKey}".encode()
    for part in (day, endpoint.region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    credential = f"Credential={endpoint.accessKey}/{scope}"
    return headers | {"Authorization": f"AWS4-HMAC-SHA256 {credential}, SignedHeaders={names}, Signature={signature}"}


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
