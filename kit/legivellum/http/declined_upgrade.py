"""Parsing goes on behind a head that offered another protocol, when the offer is declined.

httptools takes a message with `Connection: Upgrade` for complete at the end of its head and drops its body. A second
parser is given a head with the same framing, unheard, and then the rest of the connection.
"""

from __future__ import annotations

from typing import Protocol

import httptools


class ParserCallbacks(Protocol):
    """What httptools calls."""

    def on_message_begin(self) -> None: ...
    def on_url(self, url: bytes) -> None: ...
    def on_header(self, name: bytes, value: bytes) -> None: ...
    def on_headers_complete(self) -> None: ...
    def on_body(self, body: bytes) -> None: ...
    def on_message_complete(self) -> None: ...


class ParserAfterHead:
    """`parser` stands behind `head`; `callbacks` hear of what comes after it only."""

    def __init__(self, callbacks: ParserCallbacks, head: bytes) -> None:
        self._callbacks = callbacks
        self._in_head = True
        self.on_body = callbacks.on_body
        self.on_message_complete = callbacks.on_message_complete
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(head)
        self._in_head = False

    def on_message_begin(self) -> None:
        if not self._in_head:
            self._callbacks.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._in_head:
            self._callbacks.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            self._callbacks.on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self._in_head:
            self._callbacks.on_headers_complete()
