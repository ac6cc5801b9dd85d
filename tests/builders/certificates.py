"""Authorities and server certificates, good ones and those that must be refused."""

import ipaddress
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Server:
    """PEM files of a server, as MinIO and Python want them."""

    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


class TestAuthority:
    """A certificate authority of its own."""

    __test__ = False

    def __init__(self, folder: Path, *, name: str = "a private authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = _named(name)
        self._certificate = (
            _builder(self._subject, self._subject, self._key.public_key(), -DAY, 10 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.path = folder / "ca.crt"
        self.path.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def mounted(self, folder: Path, *, entry: str = "default") -> Path:
        """The folder that `VR_STORAGE_CA_DIR` must name, with this authority as the bundle of a storage entry."""
        (folder / entry).mkdir(parents=True, exist_ok=True)
        (folder / entry / "ca.crt").write_bytes(self.path.read_bytes())
        return folder

    def server(
        self, *, hosts: tuple[str, ...] = ("127.0.0.1", "localhost"), begins: timedelta = -DAY, ends: timedelta = DAY
    ) -> Server:
        """A certificate for these hosts; `begins` and `ends` are from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(_named("server"), self._subject, key.public_key(), begins, ends)
            .add_extension(x509.SubjectAlternativeName([_alternative(host) for host in hosts]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        number = len(list(self._folder.iterdir()))
        made = Server(self._folder / f"{number}.crt", self._folder / f"{number}.key")
        made.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        form, clear = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        made.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, clear))
        return made

    def laid_out_for_minio(self, folder: Path) -> Self:
        """What MinIO's `--certs-dir` must name."""
        made = self.server()
        folder.mkdir(parents=True)
        (folder / "public.crt").write_bytes(made.certificate.read_bytes())
        (folder / "private.key").write_bytes(made.key.read_bytes())
        return self


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, begins: timedelta, ends: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
    )


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
