"""Whom to believe on the way to object storage: the public authorities, and the storage entry's own.

A private authority is added to the public ones and does not replace them: one storage may redirect names to a public
load balancer, and web identity is answered by another server than the storage. What fails is told apart, because each
has another remedy, and none of it is ever ignored: there is no setting that switches the check off.
"""

import os
import ssl
from pathlib import Path

import certifi

from restoration_api.outcome import FailureReason
from restoration_api.request import StorageRequest
from restoration_runner.errors import RestorationError

CA_FOLDER = Path("/var/run/vr/storage-ca")
MOST_BUNDLE_BYTES = 8 << 20
"""Of certificates: forty times the bundle of all public authorities."""
EXPIRED, NOT_YET_VALID = 10, 9
OTHER_NAME = frozenset({62, 64})
"""Codes of OpenSSL (`X509_V_ERR_…`): the certificate is of another host name (62), of another address (64)."""


class Trust:
    """The authorities that are believed for one storage entry: `context`, replaced when they are."""

    def __init__(self, storage: StorageRequest) -> None:
        """Raises:
        RestorationError: `InvalidParameters` if the entry promises a bundle that is not mounted, or is none.
        """
        self._entry = storage.name
        self._path = _mounted_bundle(storage)
        self._bundle = self._read()
        self.context = self._believing(self._bundle)

    def renew(self) -> bool:
        """Read the bundle again; says whether it is another one now: authorities are replaced while films are restored.

        A new context, not more in the old one: OpenSSL finds an authority by its name, and a renewed one keeps that.
        """
        bundle = self._read()
        if bundle == self._bundle:
            return False
        self.context, self._bundle = self._believing(bundle), bundle
        return True

    def _read(self) -> str:
        path = self._path
        if path is None:
            return ""
        try:
            with path.open("rb") as file:
                content = file.read(MOST_BUNDLE_BYTES + 1)
            if len(content) > MOST_BUNDLE_BYTES:
                raise self._unusable("it is larger than any bundle of certificates")
            return content.decode("ascii")
        except OSError as error:
            raise self._unusable(str(error.strerror)) from error
        except UnicodeDecodeError as error:
            raise self._unusable("it is not PEM text") from error

    def _believing(self, bundle: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE") or certifi.where())
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._path is not None:
            try:
                context.load_verify_locations(cadata=bundle)
            except (ssl.SSLError, ValueError) as error:  # ValueError: it is empty
                raise self._unusable("it holds no certificate") from error
        return context

    def _unusable(self, cause: str) -> RestorationError:
        return RestorationError(
            FailureReason.INVALID_PARAMETERS,
            f"the CA bundle of storage entry '{self._entry}' ({self._path}) cannot be used: {cause}; its ConfigMap or "
            "Secret must hold certificates in PEM under the key ca.crt",
        )


def _mounted_bundle(storage: StorageRequest) -> Path | None:
    if not storage.custom_ca:
        return None
    path = Path(os.environ.get("VR_STORAGE_CA_DIR", CA_FOLDER)) / storage.name / "ca.crt"
    if not path.is_file():
        raise RestorationError(
            FailureReason.INVALID_PARAMETERS,
            f"storage entry '{storage.name}' names a CA bundle, but {path} does not exist: "
            "its ConfigMap or Secret must have the key ca.crt",
        )
    return path


def certificate_error(error: BaseException) -> ssl.SSLCertVerificationError | None:
    """The refusal of a server's certificate, if that is what an error comes from."""
    found = _innermost(error)
    return found if isinstance(found, ssl.SSLCertVerificationError) else None


def certificate_sentence(error: ssl.SSLCertVerificationError, *, host: str, entry: str) -> str:
    """What is wrong with the certificate of `host`, and what to do."""
    if error.verify_code == EXPIRED:
        return f"the certificate of {host} has expired; renew it"
    if error.verify_code == NOT_YET_VALID:
        return f"the certificate of {host} is not valid yet; check the clocks of both sides"
    if error.verify_code in OTHER_NAME:
        return f"the certificate of {host} is made out to another name; use the name in it as endpoint, or renew it"
    return (
        f"the certificate of {host} is not from an authority that is trusted ({error.verify_message}); if it is your "
        f"own, give its certificate with caConfigMapName or caSecretName of storage entry '{entry}'"
    )


def speaks_no_tls(error: BaseException) -> bool:
    """Whether the other side answered a TLS greeting with something else, as a plain HTTP server does."""
    found = _innermost(error)
    reason = found.reason if isinstance(found, ssl.SSLError) else ""
    return reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")


def _innermost(error: BaseException) -> BaseException:
    """urllib3 wraps the error of the ssl module twice: in arguments and in `reason`."""
    for _ in range(8):
        inside = getattr(error, "reason", None)
        if not isinstance(inside, BaseException):
            inside = next((item for item in error.args if isinstance(item, BaseException)), None)
        if inside is None:
            break
        error = inside
    return error
