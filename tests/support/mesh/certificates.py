"""Certificates as Istio's authority makes them: no subject, one critical SPIFFE URI, an elliptic-curve key."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.support.service import utc_now

TRUST_DOMAIN = "cluster.local"
_SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"


def spiffe(account: str, *, namespace: str = "whispr", trust_domain: str = TRUST_DOMAIN) -> str:
    """The SPIFFE id of a service account."""
    return f"spiffe://{trust_domain}/ns/{namespace}/sa/{account}"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with its key, both as PEM, and the fingerprint that Envoy puts into headers."""

    uri: str
    chain: str
    key: str
    fingerprint: str


class Authority:
    """A certificate authority of its own."""

    def __init__(self, name: str = TRUST_DOMAIN) -> None:
        self._name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        now = utc_now()
        made = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=2))
            .not_valid_after(now + timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        #: The root certificate as PEM.
        self.root = made.public_bytes(Encoding.PEM).decode()

    def issue(self, uri: str, *, ends_in: timedelta = timedelta(days=1)) -> Certificate:
        """A certificate for `uri`, valid since yesterday; one with a negative `ends_in` has expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = utc_now()
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + ends_in)
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Certificate(
            uri,
            made.public_bytes(Encoding.PEM).decode(),
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
            made.fingerprint(hashes.SHA256()).hex(),
        )


class SecretFiles:
    """The two secrets of a sidecar as files that Envoy watches (SDS): its certificate and the roots that it trusts.

    A write replaces the file in one step, which is what Envoy looks for.
    """

    def __init__(self, folder: Path, certificate: Certificate | None, roots: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        #: Whose certificate it is.
        self.uri = "" if certificate is None else certificate.uri
        if certificate is not None:
            self.present(certificate)
        self.trust(roots)

    def present(self, certificate: Certificate) -> None:
        """The sidecar shows this certificate from now on, on new connections."""
        self._write(
            "default",
            {
                "tls_certificate": {
                    "certificate_chain": {"inline_string": certificate.chain},
                    "private_key": {"inline_string": certificate.key},
                }
            },
        )

    def trust(self, roots: str) -> None:
        """The sidecar trusts these authorities from now on; several PEMs may follow each other."""
        self._write("ROOTCA", {"validation_context": {"trusted_ca": {"inline_string": roots}}})

    def config(self, name: str) -> dict[str, object]:
        """How a TLS context refers to the secret `default` (the certificate) or `ROOTCA`."""
        source = {"path": str(self._path(name)), "watched_directory": {"path": str(self._folder)}}
        return {"name": name, "sds_config": {"path_config_source": source, "resource_api_version": "V3"}}

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def _write(self, name: str, content: dict[str, object]) -> None:
        fresh = self._folder / f".{name}.new"
        fresh.write_text(json.dumps({"resources": [{"@type": _SECRET, "name": name, **content}]}), encoding="utf-8")
        fresh.replace(self._path(name))
