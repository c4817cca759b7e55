"""What one caller may ask of one process, before anybody knows who it is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes, counts and seconds. The defaults are those of docs/settings.md."""

    body_bytes: int = 65_536
    header_bytes: int = 16_384
    header_count: int = 64
    url_bytes: int = 4_096
    header_seconds: float = 2.0
    body_seconds: float = 3.0
    idle_seconds: float = 5.0
    """A connection that has not sent its first byte is closed after this; keep-alive has its own setting."""
    write_seconds: float = 5.0
    """A reader that takes nothing for this long is cut off."""
    linger_seconds: float = 1.0
    """After a refusal the rest of what the client sends is discarded for this long, so that it can read the answer."""
    connections: int = 8_192
    pipelined: int = 16
