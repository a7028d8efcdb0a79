"""The page as a whole, and the server that shows it."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

import gradio as gr

from sam_uniref.web.answers import Asked
from sam_uniref.web.compare_tab import compare_tab
from sam_uniref.web.image_tab import image_tab
from sam_uniref.web.limits import Limits
from sam_uniref.web.site import Site
from sam_uniref.web.video_tab import video_tab
from sam_uniref.web.visits import Visits

LOCAL_HOST = "127.0.0.1"
_LONGEST_SWEEP_SECONDS = 30
_FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
_FIXED_FONT = ("ui-monospace", "Consolas", "monospace")


def build(site: Site) -> gr.Blocks:
    """The page's layout with all its events."""
    age = max(1, int(site.limits.keep_minutes * 60))
    # This removes uploads that no event ever named; the others go with their visitors.
    with gr.Blocks(
        title="sam_uniref", analytics_enabled=False, delete_cache=(_sweep_seconds(site.limits), age), fill_width=False
    ) as page:
        with gr.Column(elem_id="title"):
            gr.Markdown(f"# Segment what you point at\n{site.note}")
        with gr.Tabs():
            with gr.Tab("Image", id="image"):
                image_tab(site)
            with gr.Tab("Video", id="video"):
                video_tab(site)
            with gr.Tab("Compare", id="compare"):
                compare_tab(site)

        def leave(request: gr.Request) -> None:
            site.visits.leave(request.session_hash)

        page.unload(leave)
    return page


def theme() -> gr.themes.Base:
    """Colours, and fonts that every machine has: nothing is asked of other servers."""
    return gr.themes.Soft(
        primary_hue="orange", secondary_hue="orange", neutral_hue="slate", font=_FONT, font_mono=_FIXED_FONT
    )


@contextmanager
def serving(
    asked: Asked, *, note: str, limits: Limits, host: str = LOCAL_HOST, port: int | None = None, browser: bool = False
) -> Iterator[str]:
    """The page's server while the block runs; what visitors left is removed after.

    Args:
        asked: The model and what it is compared with.
        note: In one sentence, what the model is good for.
        limits: What one visitor may ask for.
        host: Address to listen at.
        port: To listen at; by default the first free one from 7860 on.
        browser: Open the page in this machine's browser.

    Yields:
        The page's address.

    Raises:
        OSError: If the address can't be listened at.
    """
    with (
        tempfile.TemporaryDirectory(prefix="sam_uniref_web_", ignore_cleanup_errors=True) as root,
        _environment(GRADIO_TEMP_DIR=root, GRADIO_ANALYTICS_ENABLED="False"),
    ):
        visits = Visits(Path(root) / "visits", most=limits.visitors, keep_seconds=limits.keep_minutes * 60)
        page = build(Site(asked, visits, limits, note))
        visits.keep(Path(root).rglob("*"))
        page.queue(default_concurrency_limit=4, max_size=64, api_open=False)
        stop = threading.Event()
        sweeper = threading.Thread(
            target=_sweep, args=(visits, _sweep_seconds(limits), stop), daemon=True, name="sweeper"
        )
        try:
            _, url, _ = page.launch(**_launch_options(limits, host, port, browser))
            sweeper.start()
            yield url
        finally:
            stop.set()
            with suppress(Exception):  # what is half started closes badly, and the folder must go all the same
                page.close(verbose=False)
            visits.close()


def _launch_options(limits: Limits, host: str, port: int | None, browser: bool) -> dict[str, Any]:
    """Everything that could open the page further is off."""
    return {
        "server_name": host,
        "server_port": port,
        "inbrowser": browser,
        "prevent_thread_lock": True,
        "quiet": True,
        "share": False,
        "show_error": False,
        "max_file_size": limits.upload_bytes,
        "max_threads": 16,
        "state_session_capacity": limits.visitors,
        "footer_links": [],
        "run_history": False,
        "enable_monitoring": False,
        "mcp_server": False,
        "ssr_mode": False,
        "pwa": False,
        "strict_cors": True,
        "theme": theme(),
        "css": files("sam_uniref.web").joinpath("page.css").read_text(encoding="utf-8"),
    }


def _sweep_seconds(limits: Limits) -> int:
    """How often what is too old is looked for, in seconds."""
    return max(1, min(_LONGEST_SWEEP_SECONDS, int(limits.keep_minutes * 60)))


def _sweep(visits: Visits, seconds: int, stop: threading.Event) -> None:
    """Forget old visits until told to stop."""
    while not stop.wait(seconds):
        visits.expire()


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Environment variables for a block: Gradio has no other way to be told these."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
