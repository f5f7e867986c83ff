"""Files that say who is who: certificates and keys in PEM, bearer secrets; and who needs none."""

from __future__ import annotations

import ssl
from ipaddress import ip_address
from pathlib import Path

from jellyfish.errors import ConfigError


def is_loopback(host: str) -> bool:
    """Whether what is sent to `host` never leaves this machine: localhost, 127.0.0.0/8, ::1."""
    host = host.strip("[]")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_secret(path: Path, key: str) -> str:
    """Return a bearer secret: a file's text without white space around it.

    Args:
        path: the file.
        key: the job's key that names it, for errors.

    Raises:
        ConfigError: it cannot be read, is empty, or holds what no header can carry.
    """
    secret = _read(path, key).decode(errors="replace").strip()
    if not secret:
        raise ConfigError(f"{key}: {path} is empty")
    if not (secret.isascii() and secret.isprintable()):
        raise ConfigError(f"{key}: {path} holds more than one line of printable ASCII")
    return secret


def read_ca(path: Path, key: str) -> bytes:
    """Return the PEM certificates that others' must descend from.

    Args:
        path: the file.
        key: the job's key that names it, for errors.

    Raises:
        ConfigError: the file cannot be read, or holds no certificate.
    """
    found = _read(path, key)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{key}: {path} holds no certificate in PEM: {_reason(error)}") from None
    return found


def read_chain(cert: Path, key: Path) -> tuple[bytes, bytes]:
    """Return a key and its certificates, in PEM.

    Args:
        cert: file of the certificate, and of those between it and the CA; `tls_cert` in errors.
        key: file of its key; `tls_key` in errors.

    Raises:
        ConfigError: one cannot be read or is none, or they do not belong together.
    """
    chain, private = read_ca(cert, "tls_cert"), _read(key, "tls_key")
    try:
        # Without a passphrase of its own, OpenSSL asks for one at the terminal.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key, password="")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"tls_key: {key} is no key, without a passphrase, of the certificate in {cert}: "
            f"{_reason(error)}"
        ) from None
    return private, chain


def _read(path: Path, key: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{key}: {path} cannot be read: {error.strerror}") from None


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or str(error)
