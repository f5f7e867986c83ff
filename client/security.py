"""How a client trusts its server and is trusted: TLS and the bearer secret."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc

from jellyfish.files.credentials import read_ca, read_chain


@dataclass(frozen=True, kw_only=True)
class Security:
    """Where a client finds what it trusts and shows.

    Args:
        ca: PEM file of certificates that the server's must descend from; None for no TLS.
        cert: PEM file of the client's certificate, where the server asks for one.
        key: PEM file of its key.
        secret: sent as bearer token with each call; None for none.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    secret: str | None = None

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Return what gRPC connects with, read anew; None for no TLS.

        Raises:
            ConfigError: a file cannot be used.
        """
        if self.ca is None:
            return None
        key, chain = read_chain(self.cert, self.key) if self.cert and self.key else (None, None)
        return grpc.ssl_channel_credentials(read_ca(self.ca, "tls_ca"), key, chain)


def host_of(server: str) -> str:
    """Return the host in HOST:PORT."""
    return server.rpartition(":")[0].strip("[]")
