"""Certificates to sign with, as an authority issues them: made for a test, and trusted by nobody else.

References
----------
C2PA Technical Specification 2.2, "Certificate profile": key usage, extended key usage, no self-signed signer.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


@dataclass(frozen=True)
class Signer:
    """PEM of a chain, its key, and the certificate of the authority."""

    chain: str
    key: str
    root: str


def signer(
    organization: str = "City Archive",
    seconds: float = 86_400,
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.EMAIL_PROTECTION,
) -> Signer:
    """A signer of an authority of its own, whose certificate is valid for ``seconds`` from now."""
    now = datetime.datetime.now(datetime.UTC)
    above, below = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    start = now - datetime.timedelta(days=1)
    root = (
        _certificate(f"{organization} Root", f"{organization} Root", above, start, now + datetime.timedelta(days=9))
        .add_extension(x509.BasicConstraints(True, None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .sign(above, hashes.SHA256())
    )
    end = now + datetime.timedelta(seconds=seconds)
    leaf = (
        _certificate(organization, f"{organization} Root", below, start, end)
        .add_extension(x509.BasicConstraints(False, None), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=usage == ExtendedKeyUsageOID.TIME_STAMPING)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(above.public_key()), critical=False)
        .sign(above, hashes.SHA256())
    )
    pem = [each.public_bytes(serialization.Encoding.PEM).decode() for each in (leaf, root)]
    no_password = serialization.NoEncryption()
    key = below.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, no_password).decode()
    return Signer("".join(pem), key, pem[1])


def _certificate(
    subject: str, issuer: str, key: ec.EllipticCurvePrivateKey, start: datetime.datetime, end: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(organization: str) -> x509.Name:
    values = {NameOID.ORGANIZATION_NAME: organization, NameOID.COMMON_NAME: organization}
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in values.items()])


def _usage(signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=not signs,
        crl_sign=not signs,
        encipher_only=False,
        decipher_only=False,
    )
