"""Entity tags of conditional requests (RFC 9110 §13.1.2)."""


def etag_matches(tags: bytes | None, etag: str) -> bool:
    """Whether an If-None-Match list has this tag: strong, weak or bare (D-02).

    `*` matches nothing: it asks whether anything is there, and every caller of this has one particular answer in mind.
    """
    if tags is None:
        return False
    return any(_bare(tag) == etag.encode() for tag in tags.split(b","))


def _bare(tag: bytes) -> bytes:
    return tag.strip().removeprefix(b"W/").strip(b'"')
