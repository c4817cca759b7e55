"""Which store of blobs a URL names. Only the store that is used is imported."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from depotgate.blobs import Blobs, UnusableStore


def open_blobs(url: str, *, sse: str = "", kms_key: str = "") -> Blobs:
    """The store that a URL names: `file:///directory`, `memory://`, or a bucket (`s3://`, `gs://`, `az://`).

    Raises UnusableStore.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        from depotgate.file_blobs import FileBlobs  # noqa: PLC0415

        if parts.netloc or not parts.path.startswith("/"):
            raise UnusableStore("a store of files is named as file:///directory")
        return FileBlobs.open(unquote(parts.path))
    from depotgate.object_blobs import ObjectBlobs  # noqa: PLC0415

    return ObjectBlobs.open(url, sse=sse, kms_key=kms_key)
