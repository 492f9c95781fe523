"""The report of an erasure, signed: whoever holds it can show what was done, and nobody can change it."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from rlaas.errors import InvalidInputError
from rlaas.files import write_text
from rlaas.lake.privacy.vault import Vault

__all__ = ["sign_report", "verify_report", "write_report"]

_ALGORITHM = "Ed25519"


def sign_report(document: Mapping[str, Any], vault: Vault) -> dict[str, Any]:
    """The document with a signature (RFC 8032) over its canonical JSON, by the key of this installation."""
    key = Ed25519PrivateKey.from_private_bytes(vault.master("signing"))
    signature = key.sign(_canonical(document))
    return {
        **document,
        "signature": {
            "algorithm": _ALGORITHM,
            "public_key": _public(vault),
            "value": b64encode(signature).decode(),
        },
    }


def write_report(file: Path, report: Mapping[str, Any]) -> None:
    """Write a signed report."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(report, indent=1, sort_keys=True) + "\n")


def verify_report(file: Path, vault: Vault) -> dict[str, Any]:
    """The content of a report that this installation signed.

    Raises:
        InvalidInputError: no such file, no report, signed by somebody else, or changed since.
    """
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
        signature = report.pop("signature")
        value, public = b64decode(signature["value"], validate=True), str(signature["public_key"])
    except OSError as problem:
        raise InvalidInputError(f"{file}: {problem.strerror or problem}", field="report") from problem
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise InvalidInputError(f"{file} is no signed report of an erasure", field="report") from problem
    if public != _public(vault):
        raise InvalidInputError(f"{file} was signed by another installation (public key {public})", field="report")
    try:
        Ed25519PublicKey.from_public_bytes(b64decode(public)).verify(value, _canonical(report))
    except InvalidSignature:
        raise InvalidInputError(f"{file} was changed after it was signed", field="report") from None
    return dict(report)


def _public(vault: Vault) -> str:
    key = Ed25519PrivateKey.from_private_bytes(vault.master("signing"))
    return b64encode(key.public_key().public_bytes_raw()).decode()


def _canonical(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
