"""Signing in to the console, as a browser does."""

import http.client
import re
from html import unescape
from urllib.parse import urlencode


def signed_in(port: int, key: str) -> str:
    """The value of the header Cookie from then on."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/console/sign-in")
    answer = connection.getresponse()
    cookie = _cookie(answer)
    match = re.search(r'name="token" value="([^"]*)"', answer.read().decode())
    assert match is not None
    form = urlencode({"token": unescape(match[1]), "next": "/console", "credential": key})
    kind = "application/x-www-form-urlencoded"
    connection.request("POST", "/console/sign-in", form, {"Cookie": cookie, "Content-Type": kind})
    answer = connection.getresponse()
    assert answer.status == 303, answer.status
    connection.close()
    return f"{cookie}; {_cookie(answer)}"


def _cookie(answer: http.client.HTTPResponse) -> str:
    return "; ".join(item.partition(";")[0] for item in answer.headers.get_all("Set-Cookie") or ())
