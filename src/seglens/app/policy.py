"""Access control: who may use the page, and what a browser may load. Every request passes here first.

A server on localhost is reached by any web page that the same browser shows. Three checks keep others out:

- the ``Host`` of a request is one of this page's own names, so that a foreign name that is made to point here
  (DNS rebinding) gets no answer;
- the ``Origin``, where the browser sends one, is the page itself;
- the token of the printed address was shown once; from then on a cookie holds it, as Jupyter does it.
"""

import asyncio
import hmac
import ipaddress
import secrets
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

HEADERS = {
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "worker-src 'self' blob:; connect-src 'self' data: blob:; form-action 'none'; base-uri 'self'; "
    "frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""Sent with every answer. Gradio's own page has scripts in it, hence the two that are called unsafe."""

LOCAL = ("localhost", "127.0.0.1", "::1")
EVERYWHERE = ("0.0.0.0", "::")
"""Addresses that mean: listen on every address that this machine has."""

UPLOAD_SECONDS = 120.0
"""How long the body of one request may take to arrive."""

STARTS = "/gradio_api/startup-events"
"""The address that Gradio requests from its own server at the start, without a token; it reveals nothing."""

NO_TOKEN = (
    "This page opens with the token of the address that 'seglens app' printed, and only with it. "
    "Copy that address whole, up to the end of '?token=...'.\n"
)


@dataclass(frozen=True)
class Access:
    """Who is let in: the names by which the page may be asked for, and the token.

    Where the page listens on every address (``0.0.0.0``), any address written in numbers is a name of it, and
    so is this machine's own name; a name that somebody else made up is none.
    """

    host: str
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    @property
    def cookie(self) -> str:
        """The name of this page's cookie; the browser keeps those of all ports of a host together."""
        return f"seglens-{hmac.digest(self.token.encode(), b'cookie', 'sha256').hex()[:12]}"

    def is_known_host(self, header: str) -> bool:
        """Whether a ``Host`` header names this page."""
        name = _name_of(header)
        if name in (*LOCAL, self.host.strip("[]").lower()):
            return True
        return self.host in EVERYWHERE and (_is_address(name) or name == socket.gethostname().lower())

    def is_own_origin(self, origin: str, host: str) -> bool:
        """Whether an ``Origin`` header is the page that ``host`` (the ``Host`` header) names."""
        return origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")

    def is_token(self, given: str) -> bool:
        """Whether ``given`` is the token."""
        return hmac.compare_digest(given.encode(), self.token.encode())


class AccessPolicy:
    """ASGI middleware: lets in whom `Access` knows, and adds `HEADERS` to every answer."""

    def __init__(self, app: Application, access: Access) -> None:
        self.app = app
        self.access = access

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Refuse the request, or pass it on, and the answer back with more headers."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self.access.is_known_host(host):
            await _refuse(scope, sent, 403, f"This page is not called {_name_of(host)!r}.\n")
        elif origin is not None and not self.access.is_own_origin(origin, host):
            await _refuse(scope, sent, 403, f"The page {origin!r} may not use this one.\n")
        elif scope["path"] == STARTS or self._holds_token(headers):
            await self.app(scope, _in_time(receive) if scope["type"] == "http" else receive, sent)
        elif self._shows_token(scope):
            await self._welcome(sent)
        else:
            await _refuse(scope, sent, 401, NO_TOKEN)

    def _holds_token(self, headers: dict[str, str]) -> bool:
        try:
            found = SimpleCookie(headers.get("cookie", "")).get(self.access.cookie)
        except CookieError:
            return False
        return found is not None and self.access.is_token(found.value)

    def _shows_token(self, scope: Message) -> bool:
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        return scope["type"] == "http" and scope["method"] in ("GET", "HEAD") and self.access.is_token(given)

    async def _welcome(self, send: Send) -> None:
        """Set the token as a cookie and redirect to the address without it: it stays out of the history."""
        # Lax, not Strict: a browser that follows a link here would not send a strict one.
        kept = f"{self.access.cookie}={self.access.token}; Path=/; HttpOnly; SameSite=Lax"
        headers = [(b"location", b"/"), (b"set-cookie", kept.encode()), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 303, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


async def _refuse(scope: Message, send: Send, status: int, text: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": text.strip()[:100]})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})


def _in_time(receive: Receive) -> Receive:
    """Hang up on a request whose body is not there after `UPLOAD_SECONDS`."""
    whole, begun = False, asyncio.get_running_loop().time()

    async def received() -> Message:
        nonlocal whole
        if whole:
            return await receive()
        left = begun + UPLOAD_SECONDS - asyncio.get_running_loop().time()
        try:
            message = await asyncio.wait_for(receive(), max(left, 0.0))
        except TimeoutError:
            return {"type": "http.disconnect"}
        whole = not message.get("more_body", False)
        return message

    return received


def _name_of(host: str) -> str:
    """Return the name in a ``Host`` header, without the port, in lower case; '' where there is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
