"""Signing in with an API key or a token, and out again.

Both are forms that only our own page can send: each carries a token made from a nonce that its browser has in a cookie
(SameSite=Strict, HttpOnly), and a browser that says where a request comes from must say that it comes from here.
"""

from typing import Any, Final

from legivellum.console import responses
from legivellum.console.definition import ConsoleDefinition, ConsolePorts
from legivellum.console.rendering import TemplateRenderer
from legivellum.console.request_parsing import Form, link, parse_form
from legivellum.console.sessions import CookieTooLong, SessionCookies, Viewer, cookie, has_cookie
from legivellum.http.exchange import Exchange, Response
from legivellum.http.problem_codes import Code
from legivellum.http.problems import RequestRefused, refuse
from legivellum.identity.caller import Caller
from legivellum.identity.request_authenticator import require_caller

IN: Final = link("sign-in")
OUT: Final = link("sign-out")
_BODY: Final = 16_384
_LONGEST_NEXT: Final = 1_500
_FORM_MEDIA: Final = b"application/x-www-form-urlencoded"
_SAME: Final = frozenset({b"same-origin", b"none"})
_NEITHER: Final = "That is neither an API key (mgk_…) nor a token: something was left out or added in copying."
_STALE: Final = "The form was not made for this browser, or is too old. Here is a new one."


class SignIn:
    """Where somebody without a session stands: every path of the console leads here, whether it exists or not."""

    def __init__(
        self,
        definition: ConsoleDefinition,
        ports: ConsolePorts,
        cookies: SessionCookies,
        renderer: TemplateRenderer,
    ) -> None:
        self._definition = definition
        self._ports = ports
        self._renderer = renderer
        self._cookies = cookies

    def away(self, exchange: Exchange) -> Response:
        """To the sign-in page, and from there to where this was going."""
        wanted = _wanted(exchange) if exchange.method in {"GET", "HEAD"} else None
        # Only a cookie that was shown is taken back: a link from another site comes without the one that there is
        # (SameSite), and must not end the session.
        useless = (self._cookies.closed(),) if has_cookie(exchange.headers, self._cookies.session_name) else ()
        return responses.redirect(link("sign-in", next=wanted), *useless)

    def page(self, exchange: Exchange, going: str, *, problem: str | None = None, status: int = 200) -> Response:
        token, header = self._cookies.form(exchange.headers)
        values: dict[str, Any] = {
            "title": "Sign in", "token": token, "going": going, "problem": problem, "viewer": None, "live": False,
        }  # fmt: skip
        return responses.html(self._renderer.render("sign_in.html", values), header, status=status)

    async def enter(self, exchange: Exchange) -> Response:
        """POST: a session for a credential of somebody who may look, or the page again with what was wrong."""
        form = await self._form(exchange)
        going = safe_address(form.get("next", ""))
        if not self._cookies.ours(form.get("token", ""), cookie(exchange.headers, self._cookies.form_name)):
            return self.page(exchange, going, problem=_STALE, status=403)
        try:
            caller = await self._caller(exchange, form.get("credential", "").strip())
            opened = self._cookies.opened(caller)
        except CookieTooLong:
            return self.page(exchange, going, problem="The subject of this token is too long for a cookie.", status=422)
        except RequestRefused as refused:
            # 429 and 503 are no matter of the credential: the page must not say that it is wrong.
            if refused.problem.status not in {400, 401, 403}:
                raise
            exchange.code = refused.problem.code
            detail = refused.problem.detail if _looks_like_credential(form.get("credential", "")) else _NEITHER
            return self.page(exchange, going, problem=detail, status=refused.problem.status)
        return responses.redirect(going, opened)

    async def leave(self, exchange: Exchange, viewer: Viewer) -> Response:
        """POST: the cookie is gone; a copy of it holds until it expires."""
        form = await self._form(exchange)
        if not self._cookies.ours(form.get("token", ""), viewer.session.nonce):
            raise refuse(Code.INVALID_REQUEST, "Sign out with the button of a page.")
        return responses.redirect(IN, self._cookies.closed())

    async def _form(self, exchange: Exchange) -> Form:
        if not self._own_page(exchange):
            raise refuse(Code.INVALID_REQUEST, "Forms are taken from the console's own pages only.")
        media = (exchange.header(b"content-type") or b"").split(b";")[0].strip().lower()
        if media != _FORM_MEDIA:
            raise refuse(Code.UNSUPPORTED_MEDIA_TYPE, "Send the form as a form.")
        return parse_form(await exchange.body(_BODY))

    def _own_page(self, exchange: Exchange) -> bool:
        """Whether the browser says that the form is on a page of ours, as far as it says anything.

        Sec-Fetch-Site is the browser's own judgement. Browsers leave it out over plain http, and old ones always:
        then Origin has to name this host, as the browser asked for it or as the setting `public_url` has it.
        """
        site, origin = exchange.header(b"sec-fetch-site"), exchange.header(b"origin")
        if site is not None:
            return site in _SAME
        if origin is None:
            return True
        host = _host_of(origin)
        return host is not None and host in {exchange.header(b"host"), _host_of(self._ports.public_url.encode())}

    async def _caller(self, exchange: Exchange, credential: str) -> Caller:
        """The caller whom it speaks for, as the gate's own endpoints find it. Raises RequestRefused."""
        # The credential as a header of its own request: the gate's one way to find a caller is used, with its limits.
        inner = Exchange(
            {**exchange.scope, "headers": [self._header(credential)] if credential else []},
            exchange.receive,
            request_id=exchange.request_id,
            seconds=exchange.seconds,
        )
        try:
            caller = require_caller(await self._ports.authenticate(inner))
        finally:
            exchange.principal, exchange.caller_type = inner.principal, inner.caller_type
            exchange.reason = inner.reason
        if not self._definition.admits(caller.type):
            types = " or ".join(self._definition.viewer_types)
            raise refuse(Code.ROLE_REQUIRED, f"Only a principal of type {types} may look at the console.")
        return caller

    def _header(self, credential: str) -> tuple[bytes, bytes]:
        value = credential.encode()
        if credential.startswith("mgk_"):
            return self._ports.api_key_header.lower().encode(), value
        return b"authorization", b"Bearer " + value


def _looks_like_credential(text: str) -> bool:
    """An API key, or three parts with dots between: what else is typed is a slip, and told as that."""
    text = text.strip()
    return not text or text.startswith("mgk_") or text.count(".") == 2


def _host_of(url: bytes) -> bytes | None:
    """Host and port as a Host header has them; None for what is no URL, as an opaque origin (`null`) is not."""
    _, separator, rest = url.lower().partition(b"://")
    return rest.partition(b"/")[0] if separator else None


def safe_address(going: str) -> str:
    """The address if it is one of the console's own, else the overview's.

    A browser takes `..` out of a path before it asks, spelt as `%2e%2e` too: such an address leads out of the console.
    """
    known = going == "/console" or going.startswith(("/console/", "/console?"))
    plain = going.isascii() and going.isprintable() and not any(char in going for char in ' "<>\\')
    path = going.partition("?")[0].partition("#")[0]
    stays = not any(_plain(part) in {".", ".."} for part in path.split("/"))
    own = known and plain and stays and len(going) <= _LONGEST_NEXT
    return link() if not own or going.startswith((IN, OUT, link("live"))) else going


def _plain(part: str) -> str:
    return part.lower().replace("%2e", ".")


def _wanted(exchange: Exchange) -> str | None:
    path: bytes = exchange.scope.get("raw_path") or b""
    query: bytes = exchange.scope.get("query_string", b"")
    address = path.decode("latin-1") + ("?" + query.decode("latin-1") if query else "")
    return None if safe_address(address) == link() else address
