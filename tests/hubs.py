"""A server on this machine that the hub's client asks in place of the real hub."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import close_session


@contextmanager
def asked_instead(
    server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> Iterator[ThreadingHTTPServer]:
    """Let ``server`` run and be asked within the block; nothing was fetched before."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    address = f"http://127.0.0.1:{server.server_port}"
    constants = "huggingface_hub.constants"
    monkeypatch.setattr(f"{constants}.ENDPOINT", address)
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(f"{constants}.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(f"{constants}.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(f"{constants}.HF_HUB_DISABLE_XET", True)  # a protocol of its own, with own servers
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the client's attempts
    close_session()  # with the client that knows other proxies
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    close_session()
    server.shutdown()
    server.server_close()
    thread.join()
