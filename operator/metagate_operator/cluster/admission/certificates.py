"""The certificate of a self-managed webhook: a CA of its own and a leaf, both renewed long before they end. Pure but
for the keys.

A new CA is first only announced: it joins the bundle that the API server trusts, and signs the next leaf one settling
time later, so that no replica ever shows a certificate which somebody does not know yet.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_LIFETIME = timedelta(days=3 * 365)
LEAF_LIFETIME = timedelta(days=60)
CA_ANNOUNCEMENT = timedelta(minutes=5)
SKEW = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class CertificateBundle:
    """PEM, as it lies in the Secret. `authorities` is the bundle, the youngest CA first; `authority_key` is
    that one's.
    """

    authorities: bytes
    authority_key: bytes
    leaf: bytes
    leaf_key: bytes

    def secret(self) -> dict[str, bytes]:
        return {
            "ca.crt": self.authorities,
            "ca.key": self.authority_key,
            "tls.crt": self.leaf,
            "tls.key": self.leaf_key,
        }

    @classmethod
    def from_secret(cls, secret: Mapping[str, bytes]) -> CertificateBundle | None:
        """None when something is missing or is no certificate: then it is made anew."""
        try:
            material = cls(secret["ca.crt"], secret["ca.key"], secret["tls.crt"], secret["tls.key"])
            x509.load_pem_x509_certificates(material.authorities)
            x509.load_pem_x509_certificate(material.leaf)
            _key(material.authority_key)
            _key(material.leaf_key)
        except (KeyError, ValueError, TypeError):
            return None
        return material


def issue_certificates(names: Sequence[str], now: datetime) -> CertificateBundle:
    """A new CA and a leaf of it."""
    authority, key = _authority(now)
    return _leaf(CertificateBundle(_pem(authority), _private(key), b"", b""), names, now)


def renew_certificates(material: CertificateBundle, names: Sequence[str], now: datetime) -> CertificateBundle:
    """The material as it should be now; the very same object when nothing is due."""
    authorities = x509.load_pem_x509_certificates(material.authorities)
    living = [authority for authority in authorities if authority.not_valid_after_utc > now]
    if not living:
        return issue_certificates(names, now)
    if len(living) < len(authorities):
        material = replace(material, authorities=b"".join(_pem(authority) for authority in living))
    youngest = living[0]
    if _due(youngest, now):
        authority, key = _authority(now)
        material = replace(material, authorities=_pem(authority) + material.authorities, authority_key=_private(key))
        youngest = authority
    leaf = x509.load_pem_x509_certificate(material.leaf)
    settled = now - youngest.not_valid_before_utc >= CA_ANNOUNCEMENT + SKEW
    foreign = leaf.issuer != youngest.subject
    ended = leaf.not_valid_after_utc <= now
    if ended or set(_names(leaf)) != set(names) or ((_due(leaf, now) or foreign) and (settled or not foreign)):
        material = _leaf(material, names, now)
    return material


def _due(certificate: x509.Certificate, now: datetime) -> bool:
    """A third of its life is left."""
    lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return certificate.not_valid_after_utc - now < lifetime / 3


def _authority(now: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"metagate admission {serial:x}"[:64])])
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - SKEW)
        .not_valid_after(now + CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def _leaf(material: CertificateBundle, names: Sequence[str], now: datetime) -> CertificateBundle:
    authority = x509.load_pem_x509_certificates(material.authorities)[0]
    signer = _key(material.authority_key)
    key = ec.generate_private_key(ec.SECP256R1())
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(min(now + LEAF_LIFETIME, authority.not_valid_after_utc))
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    return replace(material, leaf=_pem(certificate), leaf_key=_private(key))


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _names(leaf: x509.Certificate) -> list[str]:
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in names]


def _key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("not a key of ours")
    return key


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
