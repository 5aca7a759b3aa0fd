"""The interactive page: `seglens app RUN`. Widgets and callbacks; `seglens.inspection` does the work.

The page is served to this machine only, to whoever has the token of its address, and asks nothing of any
other: Gradio's analytics are off, fonts are the system's, and a policy in every answer forbids the browser to
load anything from elsewhere (``policy.py``).
"""

import asyncio
import logging
import os
import socket
import tempfile
import time
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from seglens.app.policy import Access, AccessPolicy
from seglens.arguments import checked
from seglens.callable_module import make_callable
from seglens.data.layout import Split
from seglens.errors import SettingError
from seglens.runs import Run

if TYPE_CHECKING:
    import gradio

__all__ = ["Served", "app"]

T = TypeVar("T")

HOST = "127.0.0.1"
"""The page is for whoever sits at this machine."""

LARGEST_UPLOAD = 2**28
"""Bytes of the largest file that is taken."""

CONTRAST = {
    "button_primary_background_fill": "*primary_700",
    "button_primary_background_fill_dark": "*primary_700",
    "button_primary_background_fill_hover": "*primary_800",
    "button_primary_background_fill_hover_dark": "*primary_800",
    "color_accent": "*primary_700",
    "body_text_color_subdued": "*neutral_600",
}
"""Colours that are darker than Gradio's own: text has a contrast of 4.5 to 1."""


@dataclass
class Served:
    """A page that is served until it is closed; ``address`` holds the token that lets its reader in."""

    address: str
    blocks: "gradio.Blocks"
    scratch: ExitStack

    def close(self) -> None:
        """Stop serving, and remove what was uploaded and written."""
        self.blocks.close(verbose=False)
        self.scratch.close()

    def wait(self) -> None:
        """Serve until Ctrl-C, which is how a page ends."""
        try:
            while self.blocks.is_running:
                time.sleep(0.1)
        except KeyboardInterrupt:
            return
        finally:
            self.close()


@checked
def app(
    run: Run, pictures: Split | None = None, *, host: str = HOST, port: int | None = None, show: bool = False
) -> Served:
    """Serve the interactive page of a run, and return at once; `Served.wait` serves on until Ctrl-C.

    Args:
        run: the model.
        pictures: samples to choose from; without, pictures can only be dropped.
        host: the address to listen on. Others than this machine's own let others in who have the token.
        port: where to listen; the first free one from 7860 on by default.
        show: open the page in the browser.

    Raises:
        SettingError: Gradio is not installed, this machine has no such address, or the port is taken.
    """
    _check_gradio()
    _check_place(host, port)
    import gradio as gr
    from starlette.middleware import Middleware

    from seglens.app.page import lay_out

    # Gradio asks its own server whether it is there; that is no news.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    access = Access(host)
    scratch = ExitStack()
    folder = Path(scratch.enter_context(tempfile.TemporaryDirectory(prefix="seglens-app-")))
    scratch.enter_context(_keeping_files_in(folder))

    def launched() -> "tuple[gradio.Blocks, str]":
        blocks = lay_out(run, pictures, folder)
        _, address, _ = blocks.launch(
            server_name=host,
            server_port=port,
            share=False,
            inbrowser=False,
            inline=False,
            prevent_thread_lock=True,
            quiet=True,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
            run_history=False,
            footer_links=[],
            max_file_size=LARGEST_UPLOAD,
            theme=gr.themes.Default(
                primary_hue="sky",
                font=[gr.themes.Font(name) for name in ("system-ui", "sans-serif")],
                font_mono=[gr.themes.Font(name) for name in ("ui-monospace", "monospace")],
            ).set(**CONTRAST),
            css=(Path(__file__).parent / "page.css").read_text(encoding="utf-8"),
            app_kwargs={
                "middleware": [Middleware(AccessPolicy, access=access)],
                "docs_url": None,
                "redoc_url": None,
            },
        )
        return blocks, str(address)

    try:
        blocks, address = _in_a_loop(launched)
    except OSError as error:
        scratch.close()
        raise SettingError(
            f"The page can't be served at {host}: {error} Name a free port with --port."
        ) from error
    except BaseException:
        scratch.close()
        raise
    address = f"{address.rstrip('/')}/?token={access.token}"
    if show:
        webbrowser.open(address)
    return Served(address, blocks, scratch)


def _in_a_loop(make: Callable[[], T]) -> T:
    """Call ``make`` while an event loop runs: without one Gradio makes one for each lock, and closes none."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        return make()

    async def made() -> T:
        return make()

    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(made())
    finally:
        loop.close()


@contextmanager
def _keeping_files_in(folder: Path) -> Iterator[None]:
    """Make Gradio keep uploads in ``folder``, which is removed with the page, by an environment variable."""
    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["GRADIO_TEMP_DIR"]
        else:
            os.environ["GRADIO_TEMP_DIR"] = before


def _check_place(host: str, port: int | None) -> None:
    """Raise where nothing can be served there. Without a port any free one will do.

    Raises:
        SettingError: the port is taken or not allowed, or this machine has no such address.
    """
    where = f"{host}, port {port}" if port is not None else host
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port or 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address)
    except (OSError, OverflowError, UnicodeError) as error:
        raise SettingError(
            f"The page can't be served at {where}: {error}. Name an address of this machine with --host "
            f"(allowed are {HOST}, 0.0.0.0 for all of them, or one of its own), and a free --port, or none."
        ) from error


def _check_gradio() -> None:
    """Raise where Gradio is missing or too old, and say how to install it.

    Raises:
        SettingError: it is.
    """
    try:
        import gradio
    except ImportError as error:
        raise SettingError(
            "The interactive page needs Gradio, which is not installed. Install it with: "
            "pip install 'seglens[app]'."
        ) from error
    if int(gradio.__version__.partition(".")[0]) < 6:
        raise SettingError(
            f"The interactive page needs Gradio 6 or newer, found {gradio.__version__}. Install it with: "
            "pip install --upgrade 'seglens[app]'."
        )


make_callable(__name__)
