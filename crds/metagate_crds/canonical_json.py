"""Canonical JSON (RFC 8785) of declared values and the digests taken over it, in hex (D-22)."""

from legivellum.base.canonical_json import canonical, encode_members, join_members
from legivellum.base.canonical_json import hex_digest as digest

__all__ = ["canonical", "digest", "encode_members", "join_members"]
