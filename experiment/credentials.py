"""What the processes of one run show each other under mutual TLS; made for it, gone with it."""

from __future__ import annotations

from experiment.authority import Authority
from experiment.grid import Config
from experiment.places import Place, Placement


class Credentials:
    """Keys and certificates of one run, issued by an authority of its own.

    Each process is given its own, in files that only its user can read; places remove them when
    they end.

    Args:
        address: where clients reach the server.
    """

    def __init__(self, address: str) -> None:
        self._address, self._authority = address, Authority("one run of jellyfish")

    def of_server(self, place: Place) -> dict[str, str]:
        """Return the keys of the server's job, for files that are at `place` by then."""
        return {"tls_client_ca": self._ca(place, "server"), **self._own(place, "server")}

    def of_client(self, place: Place, name: str) -> dict[str, str]:
        """Return the keys of a client's job, for files that are at `place` by then."""
        return {"tls_ca": self._ca(place, name), **self._own(place, name)}

    def _ca(self, place: Place, name: str) -> str:
        return place.hide(f"{name}.ca.pem", self._authority.pem)

    def _own(self, place: Place, name: str) -> dict[str, str]:
        cert, key = self._authority.issue(name, self._address if name == "server" else None)
        return {
            "tls_cert": place.hide(f"{name}.cert.pem", cert),
            "tls_key": place.hide(f"{name}.key.pem", key),
        }


def credentials(config: Config, at: Placement) -> Credentials | None:
    """Return what the processes of a run are given, if the config wants them to speak TLS."""
    return Credentials(at.address) if config["network"].get("tls") == "mutual" else None
