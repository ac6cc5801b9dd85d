"""A security token service that checks what it is asked, and gives credentials that end when a test says so."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs

from tests.builders.loopback import serving

ROLE = "arn:aws:iam::123456789012:role/restorer"
_RESULT = """<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{key}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>
<SessionToken>{token}</SessionToken><Expiration>{end}</Expiration></Credentials></AssumeRoleWithWebIdentityResult>
</AssumeRoleWithWebIdentityResponse>"""
_ERROR = (
    '<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>{code}</Code>'
    "<Message>token was {token}</Message></Error><RequestId>1</RequestId></ErrorResponse>"
)


@dataclass
class TokenService:
    """valid: tokens that are accepted. lifetime: of what is given. refusal: (status, code) for all that comes, or raw
    bytes to answer with. asked: the fields of every request; wrong: what was not as AWS wants it."""

    url: str = ""
    valid: set[str] = field(default_factory=set)
    lifetime: timedelta = timedelta(hours=1)
    refusal: tuple[int, str] | bytes | None = None
    asked: list[dict[str, str]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def answer(self, path: str, kind: str, body: str) -> tuple[int, bytes]:
        fields = {name: values[0] for name, values in parse_qs(body, strict_parsing=True).items()}
        self.asked.append(fields)
        token = fields.get("WebIdentityToken", "")
        if path != "/":
            self.wrong.append(f"path {path}: a token in it would be logged")
        if kind != "application/x-www-form-urlencoded":
            self.wrong.append(f"content type {kind}")
        wanted = {"Action": "AssumeRoleWithWebIdentity", "Version": "2011-06-15", "RoleArn": ROLE}
        self.wrong += [f"{name}={fields.get(name)}" for name, value in wanted.items() if fields.get(name) != value]
        if not fields.get("RoleSessionName"):
            self.wrong.append("no RoleSessionName")
        if isinstance(self.refusal, bytes):
            return 200, self.refusal
        if self.refusal is not None:
            return self.refusal[0], _ERROR.format(code=self.refusal[1], token=token).encode()
        if token not in self.valid:
            return 400, _ERROR.format(code="InvalidIdentityToken", token=token).encode()
        number = len(self.asked)
        end = (datetime.now(UTC) + self.lifetime).strftime("%Y-%m-%dT%H:%M:%SZ")
        given = {"key": f"ASIATEMPORARY{number:03}", "secret": f"temporary-secret-{number:03}/+=", "end": end}
        return 200, _RESULT.format(**given, token=f"temporary-session-{number:03}").encode()


@contextlib.contextmanager
def token_service() -> Iterator[TokenService]:
    service = TokenService()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
            status, content = service.answer(self.path, self.headers.get("Content-Type", ""), body)
            self.send_response(status)
            self.send_header("Content-Type", "text/xml")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    with serving(Handler) as service.url:
        yield service
