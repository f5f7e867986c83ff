"""How many bytes frames may take: one frame, one client, all clients together, one message.

All follow from the profile, so that whoever sends what the zoo's DNNs take never meets them. With
F, what a frame of the largest size weighs in the profile, and P, that size in px:

- a frame: 4 F, and no less than 2 bytes a pixel and 4 KiB. The heaviest honest content is noise: as
  JPEG of quality 90 it weighs .90 bytes a pixel with halved colours, as our client sends it, and
  1.87 with full ones; a frame of video weighs some .24.
- a client's frames without an answer: 64 F (it may have 64 such frames), and no less than four of
  the heaviest frames.
- those of all clients: 8 F for each client that the server takes, and no less than two clients'
  most. The first half is whoever's comes first. Of the second each client has an equal share, so
  that some that fill the first cannot keep the others out.
- a message: a frame, and 64 KiB for its other fields, and for telling those who send a little too
  much. A larger one ends its stream: RESOURCE_EXHAUSTED, with both numbers.

A frame beyond the first is answered with an error, one beyond the second or third is rejected. So
the server holds at most the third (where F is 140 kB: 287 MB for 256 clients, 9 MB for one of
them), and what gRPC has of one message a stream, and of the next one.
"""

from __future__ import annotations

from dataclasses import dataclass

from jellyfish import jpeg
from jellyfish.profile import Profile

FRAME_FACTOR = 4
FRAME_BYTES_PER_PIXEL, FRAME_EXTRA_BYTES = 2, 4096
CLIENT_FRAMES, CLIENT_HEAVIEST_FRAMES = 64, 4
FRAMES_PER_SEAT = 8
MESSAGE_EXTRA_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What frames may take; see the module. `px`: how long their sides may be."""

    px: int
    frame_bytes: int
    client_bytes: int
    total_bytes: int

    @classmethod
    def of(cls, profile: Profile, max_clients: int) -> Limits:
        """Return the limits of a server with this profile that takes `max_clients`."""
        px, honest = int(profile.input_px[-1]), int(profile.frame_bytes.max())
        floor = FRAME_BYTES_PER_PIXEL * px * px + FRAME_EXTRA_BYTES
        frame = max(FRAME_FACTOR * honest, floor)
        client = max(CLIENT_FRAMES * honest, CLIENT_HEAVIEST_FRAMES * frame)
        total = max(FRAMES_PER_SEAT * honest * max_clients, 2 * client)
        return cls(px=px, frame_bytes=frame, client_bytes=client, total_bytes=total)

    @property
    def message_bytes(self) -> int:
        """The largest message that gRPC takes from a client."""
        return self.frame_bytes + MESSAGE_EXTRA_BYTES

    def image_fault(self, image: bytes, decoded: bool) -> str | None:
        """Return why a frame is refused, if so; one that no worker decodes need be no JPEG."""
        if decoded:
            return jpeg.fault(image, self.px, self.frame_bytes)
        return jpeg.too_heavy(image, self.frame_bytes)

    def full(self, size: int, client_bytes: int, total_bytes: int, clients: int) -> bool:
        """Return whether `size` bytes more are too many.

        Args:
            client_bytes: held by this client's frames already.
            total_bytes: held by all clients' frames.
            clients: how many there are.
        """
        most, total = self.client_bytes, total_bytes + size
        if total > self.total_bytes // 2:
            most = min(most, self.total_bytes // 2 // max(1, clients))
        return client_bytes + size > most or total > self.total_bytes
