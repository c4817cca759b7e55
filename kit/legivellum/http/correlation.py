"""One id that a request carries through every log line: the caller's own when it is sane, else a new one."""

import re

import uuid_utils

from legivellum.http.exchange import RawHeaders

_SANE = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:/=+-]{0,127}\Z")


def request_id(headers: RawHeaders) -> str:
    for name, value in headers:
        if name == b"x-request-id" and _SANE.match(value):
            return value.decode()
    return uuid_utils.uuid7().hex
