"""Who is let in to the page: requests made by hand, what the browser and a stranger would send."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from seglens.app.policy import Access, AccessPolicy

TOKEN = "a-token"


def run(coroutine):
    """Run it in a thread of its own: the browser of other tests may have left a loop running in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


async def inner(scope, receive, send):
    """Stands for the page: answers 200 once the whole body is there."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"inside"})


def ask(access, *, path="/", query="", method="GET", kind="http", body=(b"",), **headers):
    """Return what is sent for one request."""
    scope = {
        "type": kind,
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    parts = [{"type": "http.request", "body": part, "more_body": True} for part in body]
    parts[-1]["more_body"] = False
    sent: list[dict] = []

    async def receive():
        return parts.pop(0)

    async def send(message):
        sent.append(message)

    run(AccessPolicy(inner, access)(scope, receive, send))
    return sent


def cookie(access):
    return f"{access.cookie}={access.token}"


@pytest.mark.parametrize("name", ["localhost:7860", "127.0.0.1:7860", "[::1]:7860", "LOCALHOST", "127.0.0.1"])
def test_names_of_this_machine(name):
    access = Access("127.0.0.1", TOKEN)
    assert ask(access, host=name, cookie=cookie(access))[0]["status"] == 200


@pytest.mark.parametrize(
    "name", ["evil.example", "localhost.evil.example", "", "192.168.0.9", "[", "127.0.0.1.nip.io"]
)
def test_another_name_gets_nothing(name):
    """A foreign name that was made to point here, with the right cookie or the right token, is refused."""
    access = Access("127.0.0.1", TOKEN)
    assert ask(access, host=name, cookie=cookie(access))[0]["status"] == 403
    assert ask(access, host=name, query=f"token={TOKEN}")[0]["status"] == 403


def test_names_where_it_listens_on_every_address():
    access = Access("0.0.0.0", TOKEN)
    assert ask(access, host="192.168.0.9:7860", cookie=cookie(access))[0]["status"] == 200
    assert ask(access, host="evil.example", cookie=cookie(access))[0]["status"] == 403
    named = Access("lab.example", TOKEN)
    assert ask(named, host="lab.example:80", cookie=cookie(named))[0]["status"] == 200


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:7860", 200),
        ("http://localhost:8000", 403),
        ("http://127.0.0.1:7860", 403),
        ("null", 403),
        ("", 403),
        ("http://evil.example", 403),
    ],
)
def test_the_origin_is_the_page_itself(origin, status):
    access = Access("127.0.0.1", TOKEN)
    told = ask(access, host="localhost:7860", origin=origin, cookie=cookie(access), method="POST")
    assert told[0]["status"] == status


def test_the_token_is_shown_once():
    access = Access("127.0.0.1", TOKEN)
    told = ask(access, host="localhost:7860", query=f"token={TOKEN}")
    assert (told[0]["status"], dict(told[0]["headers"])[b"location"]) == (303, b"/")
    kept = dict(told[0]["headers"])[b"set-cookie"].decode()
    assert kept == f"{access.cookie}={TOKEN}; Path=/; HttpOnly; SameSite=Lax"
    assert ask(access, host="localhost:7860", cookie=f"other=1; {kept.partition(';')[0]}")[0]["status"] == 200
    assert ask(access, host="localhost:7860", method="POST", query=f"token={TOKEN}")[0]["status"] == 401


@pytest.mark.parametrize("given", ["", "token=", "token=a", "token=A-TOKEN", "tokens=a-token"])
def test_another_token(given):
    told = ask(Access("127.0.0.1", TOKEN), host="localhost", query=given)
    assert told[0]["status"] == 401
    assert b"the address that 'seglens app' printed" in told[1]["body"]


def test_a_cookie_of_another_page():
    access, other = Access("127.0.0.1", TOKEN), Access("127.0.0.1", "another")
    assert ask(access, host="localhost", cookie=cookie(other))[0]["status"] == 401
    assert ask(access, host="localhost", cookie="\x7f=;;;")[0]["status"] == 401


def test_a_stream_is_refused_as_streams_are():
    told = ask(Access("127.0.0.1", TOKEN), kind="websocket", host="evil.example")
    assert told[0] == {
        "type": "websocket.close",
        "code": 1008,
        "reason": "This page is not called 'evil.example'.",
    }


def test_every_answer_has_the_headers():
    access = Access("127.0.0.1", TOKEN)
    for told in (
        ask(access, host="x"),
        ask(access, host="localhost"),
        ask(access, host="localhost", cookie=cookie(access)),
    ):
        assert b"default-src 'self'" in dict(told[0]["headers"])[b"content-security-policy"]


def test_a_body_that_never_comes(monkeypatch):
    """The page hangs up: what waits for the body is told that the browser is gone."""
    monkeypatch.setattr("seglens.app.policy.UPLOAD_SECONDS", 0.05)
    access = Access("127.0.0.1", TOKEN)
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/gradio_api/upload",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"cookie", cookie(access).encode())],
    }
    heard = []

    async def page(scope, receive, send):
        heard.append(await receive())

    async def never():
        await asyncio.sleep(60)

    async def send(message):
        raise AssertionError(message)

    run(AccessPolicy(page, access)(scope, never, send))
    assert heard == [{"type": "http.disconnect"}]
