"""Whole lives of a runner with known secrets: none of them in a log line, a message, a metric, or what is left behind.

The judge (`builders.leaks`) decodes what it reads; it does not know how the product looks for secrets.
"""

import base64
import contextlib
import hashlib
import http.client
import http.server
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from minio.credentials.providers import AssumeRoleProvider
from tests.builders import clips
from tests.builders.certificates import TestAuthority
from tests.builders.clips import Clip
from tests.builders.faulty import Faults, faulty
from tests.builders.jobs import make_request
from tests.builders.leaks import leaks
from tests.builders.loopback import serving
from tests.builders.models import write_tiny_model
from tests.builders.oidc import AUDIENCE, issuer
from tests.builders.servers import ACCESS_KEY, SECRET_KEY, S3Server, free_ports, minio_server
from tests.builders.sts import ROLE, token_service

from restoration_api.outcome import FailureReason, Outcome
from restoration_api.request import Addressing, CredentialSource, Request, StorageRequest
from restoration_runner import inputs, pod, secrets
from restoration_runner.errors import RestorationError
from restoration_runner.pod import PodOptions
from restoration_runner.storage import identity, s3

KEY = "AKIAQX7EXAMPLE4QK2ZP"
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYzEXAMPLEKEY="
SESSION = "IQoJb3JpZ2luX2VjEHQaCXVzLWVhc3QtMSJHMEUCIQDz/wq+8dR3kf0s="
TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQifQ.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg"
PASSWORD = "correct-horse-battery-staple"
SIGNATURE = "fe5f80f77d5fa3beca038a248ff027d0445342fe2855ddc963176630326f1024"
ALL = (KEY, SECRET, SESSION, TOKEN, PASSWORD, SIGNATURE)


@dataclass
class Life:
    """A pod: its mounted files, its request, and everything that it writes."""

    folder: Path
    model: Path
    capture: pytest.CaptureFixture[str]
    texts: dict[str, str] = field(default_factory=dict)

    def secret(self, *, access: str = KEY, key: str = SECRET, session: str | None = SESSION) -> None:
        place = self.folder / "secrets" / "default"
        place.mkdir(parents=True, exist_ok=True)
        for name, value in {"access-key": access, "secret-key": key, "session-token": session}.items():
            (place / name).write_text(value or "")

    def live(self, request: Request, *, port: int = 0) -> Outcome:
        """Run it as a pod does; returns the termination message."""
        path, message = self.folder / "request.json", self.folder / "termination"
        path.write_text(request.to_json())
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        (self.folder / "scratch").mkdir(exist_ok=True)
        options = PodOptions(
            request=path,
            request_sha256=digest,
            scratch=self.folder / "scratch",
            http_port=port,
            termination_log=message,
        )
        pod.work_in_pod("run", options)
        written = self.capture.readouterr()
        self.texts |= {"log": written.err, "output": written.out, "termination message": message.read_text()}
        return Outcome.from_json(message.read_text())

    def check(self, *more: str) -> None:
        assert '"event"' in self.texts["log"], "it must have logged something"
        assert leaks([*self.texts.values(), *more], ALL) == []


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture
def life(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Life]:
    """With the most talkative log there is."""
    monkeypatch.setenv("VR_LOG_LEVEL", "debug")
    monkeypatch.setenv("VR_STORAGE_DIR", str(tmp_path / "secrets"))
    monkeypatch.setenv("VR_STORAGE_CA_DIR", str(tmp_path / "bundles"))
    monkeypatch.setattr(s3, "FIRST_PAUSE_SECONDS", 0.001)
    secrets.forget_all()
    made = Life(tmp_path, model, capsys)
    made.secret()
    yield made
    secrets.forget_all()


def storage(endpoint: str, **changes: Any) -> StorageRequest:
    base = StorageRequest(name="default", endpoint=endpoint, addressing=Addressing.PATH, region="us-east-1")
    return base.model_copy(update=changes)


def request(life: Life, entry: StorageRequest, *, source: str = "s3://media/in.mp4") -> Request:
    return make_request(source, "s3://media/out.mp4", life.model, storage=(entry,))


# Failures.

ECHO = (
    f"<Error><Code>SignatureDoesNotMatch</Code><Message>no</Message><AWSAccessKeyId>{KEY}</AWSAccessKeyId>"
    f"<StringToSign>AWS4-HMAC-SHA256 {SECRET}</StringToSign><Token>{SESSION}</Token></Error>"
)


class Echo:
    """A server that answers everything by repeating what it knows."""

    def __init__(self, status: int, body: str, kind: str = "application/xml") -> None:
        self.answer = (status, body.encode(), kind)

    @contextlib.contextmanager
    def serving(self) -> Iterator[str]:
        status, body, kind = self.answer

        class Handler(http.server.BaseHTTPRequestHandler):
            def _say(self) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Location", f"http://{KEY}:{PASSWORD}@127.0.0.1/?X-Amz-Signature={SIGNATURE}")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _say  # noqa: N815  # names that the base class looks for

        with serving(Handler) as url:
            yield url


ANSWERS = [
    (403, ECHO, "application/xml"),
    (400, ECHO.replace("SignatureDoesNotMatch", "ExpiredToken"), "application/xml"),
    (500, ECHO, "application/xml"),
    (503, f"<html>{SESSION} {SECRET}</html>", "text/html"),
    (301, "", "application/xml"),
    (200, f"<not what was asked {SECRET}", "application/xml"),
    (418, ECHO.replace("SignatureDoesNotMatch", SECRET), "application/xml"),
]


@pytest.mark.parametrize(("status", "body", "kind"), ANSWERS, ids=[str(row[0]) for row in ANSWERS])
def test_a_server_that_repeats_what_it_was_told(life: Life, status: int, body: str, kind: str) -> None:
    with Echo(status, body, kind).serving() as endpoint:
        outcome = life.live(request(life, storage(endpoint)))
    assert outcome.result == "Failed"
    life.check()


QUOTES: list[Callable[[], Exception]] = [
    lambda: ValueError(f"Invalid header value b'{SESSION}\\n'"),
    lambda: RuntimeError(f"GET https://media.s3.amazonaws.com/in.mp4?{urlencode({'X-Amz-Signature': SIGNATURE})}"),
    lambda: OSError(5, f"http://user:{PASSWORD}@proxy:3128 refused {base64.b64encode(SECRET.encode()).decode()}"),
    lambda: KeyError(SECRET),
    lambda: RestorationError(FailureReason.STORAGE_ERROR, f"{'x' * 1015}{SECRET}"),
    lambda: ExceptionGroup("several", [ValueError(SECRET), ValueError(f"Bearer {TOKEN}")]),
]


@pytest.mark.parametrize("error", QUOTES, ids=range(len(QUOTES)))
def test_an_error_of_a_library_that_quotes_the_request(
    life: Life, monkeypatch: pytest.MonkeyPatch, error: Callable[[], Exception]
) -> None:
    """With its traceback in the log, and the request's values known, as they are once the first one was signed."""

    def fail(*_: object, **__: object) -> None:
        secrets.learn(KEY, SECRET, SESSION)
        try:
            raise ConnectionError(f"caused by {SECRET}")
        except ConnectionError as cause:
            raise error() from cause

    monkeypatch.setattr(inputs, "open_store", fail)
    assert life.live(request(life, storage("http://127.0.0.1:1"))).result == "Failed"
    assert "Traceback" in life.texts["log"]
    life.check()


ADDRESSES = [
    (f"s3://{KEY}:{PASSWORD}@media/in.mp4", "http://127.0.0.1:1"),
    (f"https://media.example.com/in.mp4?X-Amz-Credential={KEY}&X-Amz-Signature={SIGNATURE}", "http://127.0.0.1:1"),
    (f"https://user:{PASSWORD}@media.example.com/in.mp4", "http://127.0.0.1:1"),
    ("s3://media/in.mp4", f"http://user:{PASSWORD}@127.0.0.1:1"),
    ("s3://media/in.mp4", f"ftp://user:{PASSWORD}@127.0.0.1:1/?token={SIGNATURE}"),
    (f"ftp://user:{PASSWORD}@media/in.mp4", "http://127.0.0.1:1"),
]


@pytest.mark.parametrize(("source", "endpoint"), ADDRESSES, ids=range(len(ADDRESSES)))
def test_a_password_in_an_address(life: Life, source: str, endpoint: str) -> None:
    outcome = life.live(request(life, storage(endpoint), source=source))
    assert outcome.reason == "InvalidParameters"
    life.check()


@pytest.mark.parametrize("spoiled", [f"{SECRET}\nsecond line", f"é{SECRET}", f"{SECRET} {SECRET}"])
def test_a_key_that_no_header_holds(life: Life, spoiled: str) -> None:
    life.secret(key=spoiled)
    outcome = life.live(request(life, storage("http://127.0.0.1:1")))
    assert outcome.reason == "AccessDenied"
    life.check()


def test_a_token_service_that_repeats_the_token(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    (life.folder / "token").write_text(TOKEN)
    with token_service() as service:
        monkeypatch.setenv(identity.TOKEN_FILE, str(life.folder / "token"))
        monkeypatch.setenv(identity.ROLE, ROLE)
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", service.url)
        entry = storage("http://127.0.0.1:1", credentials=CredentialSource.WORKLOAD_IDENTITY)
        assert life.live(request(life, entry)).reason == "AccessDenied"
        assert service.asked and service.wrong == []
    life.check()


# A success, with everything on: TLS with a private authority, a real token service, a real store.


@pytest.fixture(scope="module")
def secured(
    minio_program: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[S3Server, Any, TestAuthority]]:
    folder = tmp_path_factory.mktemp("secured")
    authority = TestAuthority(folder / "authority")
    with issuer() as cluster:
        oidc = {"CONFIG_URL": f"{cluster.url}/.well-known/openid-configuration", "CLIENT_ID": AUDIENCE}
        environment = {f"MINIO_IDENTITY_OPENID_{name}": value for name, value in oidc.items()}
        environment["MINIO_IDENTITY_OPENID_ROLE_POLICY"] = "readwrite"
        with minio_server(folder, authority=authority, **environment) as server:
            server.make_bucket("media")
            clip = clips.write(folder / "in.mp4", Clip(frames=10, width=64, height=64))
            server.client().fput_object("media", "in.mp4", str(clip))
            yield server, cluster, authority


def role() -> str:
    """MinIO derives it from the client's name."""
    digest = hashlib.sha1(AUDIENCE.encode(), usedforsecurity=False).digest()
    return f"arn:minio:iam:::role/{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


class Listener:
    """Asks a runner for its metrics as long as it answers."""

    def __init__(self, port: int) -> None:
        self.heard: list[str] = []
        self._port = port
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen)

    def __enter__(self) -> "Listener":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _listen(self) -> None:
        while not self._over.wait(0.05):
            for path in ("/metrics", "/progress", "/healthz", "/", "/environ?x=y"):
                with contextlib.suppress(OSError, http.client.HTTPException):
                    connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
                    connection.request("GET", path)
                    self.heard.append(connection.getresponse().read().decode())
                    connection.close()


def test_a_restoration_over_tls_with_web_identity_leaves_no_secret(
    life: Life, secured: tuple[S3Server, Any, TestAuthority], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, cluster, authority = secured
    authority.mounted(life.folder / "bundles")
    token = cluster.token()
    (life.folder / "token").write_text(token)
    monkeypatch.setenv(identity.TOKEN_FILE, str(life.folder / "token"))
    monkeypatch.setenv(identity.ROLE, role())
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", server.endpoint)
    given: list[str] = []
    learn = secrets.learn
    monkeypatch.setattr(secrets, "learn", lambda *values: (given.extend(v for v in values if v), learn(*values))[1])
    entry = storage(server.endpoint, credentials=CredentialSource.WORKLOAD_IDENTITY, custom_ca=True)
    (port,) = free_ports(1)
    with Listener(port) as listener:
        outcome = life.live(request(life, entry), port=port)
    assert outcome.reason == "Completed", outcome.message
    assert token in given and len(given) >= 4, "what the token service gave is what must not show"
    left = []
    for item in server.client().list_objects("media", recursive=True):
        if not item.object_name.endswith(".mp4"):
            left.append(server.client().get_object("media", item.object_name).data.decode())
        left.append(str(server.client().stat_object("media", item.object_name).metadata))
    assert any('"cacheKey"' in text for text in left), "final.json is among what is left"
    assert any("vr_runner_frames_done" in text for text in listener.heard)
    life.check()
    assert leaks([*life.texts.values(), *left, *listener.heard], given) == []


def test_temporary_keys_of_a_real_token_service_serve_as_files(
    life: Life, secured: tuple[S3Server, Any, TestAuthority], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`AssumeRole`, as an operator of external secrets would do it: three files, a session token among them."""
    server, _, authority = secured
    authority.mounted(life.folder / "bundles")
    provider = AssumeRoleProvider(
        sts_endpoint=server.endpoint,
        access_key=ACCESS_KEY,
        secret_key=SECRET_KEY,
        duration_seconds=int(timedelta(hours=1).total_seconds()),
        http_client=server.pool(),
    )
    keys = provider.retrieve()
    life.secret(access=keys.access_key, key=keys.secret_key, session=keys.session_token)
    entry = storage(server.endpoint, custom_ca=True)
    assert life.live(request(life, entry)).result == "Succeeded"
    life.check()
    life.secret(access=keys.access_key, key=keys.secret_key, session=None)
    denied = life.live(request(life, entry))
    assert denied.reason == "AccessDenied", "without its session token a temporary key opens nothing"


def test_a_store_with_another_authority_is_told_nothing(
    life: Life, secured: tuple[S3Server, Any, TestAuthority]
) -> None:
    TestAuthority(life.folder / "other").mounted(life.folder / "bundles")
    outcome = life.live(request(life, storage(secured[0].endpoint, custom_ca=True)))
    assert outcome.reason == "StorageError"
    assert "is not from an authority that is trusted" in outcome.message
    life.check()


def test_a_lost_connection_says_where_and_not_with_what(life: Life, moto: S3Server) -> None:
    faults = Faults(torn=1000)
    with faulty(moto.endpoint, faults) as endpoint:
        outcome = life.live(request(life, storage(endpoint)))
    assert outcome.reason == "StorageError"
    life.check()
