"""The broker's own certificate authority: made at the first start, kept in a directory, trusted by whom you tell."""

from __future__ import annotations

import datetime
import fcntl
import ipaddress
import os
import secrets
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_DAYS = 3650
SERVER_DAYS = 397  # what clients still accept of a server certificate
RENEW_DAYS = 30  # a server certificate with less than this left is made anew
BACKDATE_MINUTES = 5  # clocks of clients may be behind


@dataclass(frozen=True, slots=True)
class Authority:
    """Files of one authority and the server certificate that it signed."""

    ca_path: Path
    certificate_path: Path
    key_path: Path

    def server_context(self) -> ssl.SSLContext:
        """TLS 1.2 or later with the server certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.certificate_path, self.key_path)
        return context


def ensure_authority(directory: Path, hosts: tuple[str, ...]) -> Authority:
    """The authority in `directory`, made if it is not there; its server certificate covers all `hosts`.

    Private keys are readable by their owner only. Raises OSError if the directory cannot be written.
    """
    with _locked(directory):
        return _ensure(directory, hosts)


def kept_key(directory: Path) -> str:
    """The shared access key in `directory`, made if it is not there, so that a restart keeps clients working."""
    path = directory / "sas.key"
    with _locked(directory):
        if not path.exists():
            _write(path, secrets.token_urlsafe(32).encode("ascii") + b"\n", 0o600)
    return path.read_text(encoding="ascii").strip()


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """One process at a time: two that start together must not each make half of an authority."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _ensure(directory: Path, hosts: tuple[str, ...]) -> Authority:
    ca_path, ca_key_path = directory / "ca.pem", directory / "ca.key"
    if not (ca_path.exists() and ca_key_path.exists()):
        _make_ca(ca_path, ca_key_path)
    certificate_path, key_path = directory / "server.pem", directory / "server.key"
    if not _still_good(certificate_path, key_path, ca_path, hosts):
        _make_server(ca_path, ca_key_path, certificate_path, key_path, hosts)
    return Authority(ca_path, certificate_path, key_path)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _still_good(certificate_path: Path, key_path: Path, ca_path: Path, hosts: tuple[str, ...]) -> bool:
    if not (certificate_path.exists() and key_path.exists()):
        return False
    certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
    authority = x509.load_pem_x509_certificate(ca_path.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    left = certificate.not_valid_after_utc - _now()
    return (
        certificate.issuer == authority.subject
        and left > datetime.timedelta(days=RENEW_DAYS)
        and {_alternative(host) for host in hosts} <= set(names)
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = _now()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=BACKDATE_MINUTES))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _make_ca(ca_path: Path, key_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    # A serial part in the name: two authorities on one machine must not look the same to a client.
    name = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"fusebus-servicebus local CA {x509.random_serial_number():x}"[:64])]
    )
    certificate = (
        _builder(name, name, key.public_key(), CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    _write_key(key_path, key)
    _write(ca_path, certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def _make_server(ca_path: Path, ca_key_path: Path, path: Path, key_path: Path, hosts: tuple[str, ...]) -> None:
    authority = x509.load_pem_x509_certificate(ca_path.read_bytes())
    signer = serialization.load_pem_private_key(ca_key_path.read_bytes(), password=None)
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{ca_key_path} does not hold an elliptic-curve key")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
    certificate = (
        _builder(subject, authority.subject, key.public_key(), SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(x509.SubjectAlternativeName([_alternative(host) for host in hosts]), critical=False)
        .sign(signer, hashes.SHA256())
    )
    _write_key(key_path, key)
    _write(path, certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    data = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write(path, data, 0o600)


def _write(path: Path, data: bytes, mode: int) -> None:
    """Complete or not at all, and never readable by more people than in the end."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    temporary.replace(path)
