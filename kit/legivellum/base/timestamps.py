"""Times as they leave a gate (D-64)."""

from datetime import UTC, datetime


def rfc3339(moment: datetime) -> str:
    """RFC 3339 in UTC with `Z`, always with microseconds: as text it sorts like the time. `moment` is aware."""
    return f"{moment.astimezone(UTC).isoformat(timespec='microseconds')[:26]}Z"
