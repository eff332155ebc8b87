"""Keys and certificates for a federation on this machine: an authority, a SuperLink, and nodes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PLAIN = serialization.NoEncryption()


def make_authority_and_server(folder: Path, days: int = 30) -> None:
    """Write ca.pem, server.pem and server.key: the SuperLink at 127.0.0.1, vouched for by an authority.

    The authority's own key is written nowhere: nobody can be added later.
    """
    authority, server = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    name = _name("byzopt example authority")
    above = _certificate(name, name, authority.public_key(), days).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    places = [x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("localhost")]
    below = _certificate(_name("localhost"), name, server.public_key(), days).add_extension(
        x509.SubjectAlternativeName(places), critical=False
    )
    for file, certificate in (("ca.pem", above), ("server.pem", below)):
        signed = certificate.sign(authority, hashes.SHA384())
        (folder / file).write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    _write_secret(folder / "server.key", server, serialization.PrivateFormat.PKCS8)


def make_node_key(place: Path) -> Path:
    """Write a node's secret key to `place` and its public one beside it; the latter's place."""
    key = ec.generate_private_key(ec.SECP384R1())
    _write_secret(place, key, serialization.PrivateFormat.OpenSSH)
    public = place.with_suffix(".pub")
    ssh = serialization.PublicFormat.OpenSSH
    public.write_bytes(key.public_key().public_bytes(serialization.Encoding.OpenSSH, ssh))
    return public


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(
    name: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - timedelta(minutes=5)).not_valid_after(now + timedelta(days=days))


def _write_secret(place: Path, key: ec.EllipticCurvePrivateKey, form: serialization.PrivateFormat) -> None:
    place.touch(mode=0o600)
    place.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, PLAIN))
