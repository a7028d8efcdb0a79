"""The ``sam-uniref demo`` command: a web page to try the model on.

Heavy imports stand inside the command, so that ``--help`` answers at once.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sam_uniref.commands.options import (
    DEFAULT_MODEL,
    CheckpointOption,
    DeviceOption,
    ImageSizeOption,
    chosen_device,
)

if TYPE_CHECKING:
    from sam_uniref.trainable import TrainableModel
    from sam_uniref.web.answers import Asked, ExampleMethod

_LOCAL = ("127.0.0.1", "localhost", "::1")
_INSTALL = "the page needs Gradio, which is not installed here; pip install 'sam_uniref[demo]'"
_TINY_NOTE = (
    "By a sentence, a click or an example. This is the packaged **tiny** model: it knows drawn shapes as below "
    "and has never seen a photograph. `sam-uniref demo --model FOLDER` shows a model of yours."
)
_NOTE = "By a sentence, a click or an example: give any of them, or several together."


def demo(
    model: Annotated[
        str, typer.Option("--model", help="A saved model's folder, or a hub id; by default tiny, packaged.")
    ] = DEFAULT_MODEL,
    checkpoint: CheckpointOption = None,
    image_size: ImageSizeOption = None,
    device: DeviceOption = None,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen at; any but 127.0.0.1 lets others in.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option("--port", min=1, max=65535, help="Port; the first free one from 7860 by default.")
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
    max_upload: Annotated[float, typer.Option("--max-upload", help="Megabytes of an uploaded file.")] = 64,
    max_megapixels: Annotated[float, typer.Option("--max-megapixels", help="Of a picture or a frame.")] = 16,
    max_frames: Annotated[int, typer.Option("--max-frames", help="Of a video.")] = 300,
    max_seconds: Annotated[float, typer.Option("--max-seconds", help="A video's length.")] = 30,
    keep_minutes: Annotated[
        float, typer.Option("--keep-minutes", help="How long the files of an idle visitor are kept.")
    ] = 60,
) -> None:
    """A web page to try the model on: pictures, videos, and methods side by side.

    Works at once with the packaged model: sam-uniref demo
    """
    from sam_uniref.web.limits import Limits

    limits = Limits(
        upload_megabytes=max_upload,
        megapixels=max_megapixels,
        frames=max_frames,
        seconds=max_seconds,
        keep_minutes=keep_minutes,
    )
    try:
        import gradio  # noqa: F401 - told early, before the model is loaded
    except ModuleNotFoundError as error:
        raise ValueError(_INSTALL) from error
    from sam_uniref.loading import load_for_use
    from sam_uniref.web.address import check_address
    from sam_uniref.web.page import serving

    check_address(host, port)
    loaded = load_for_use(model, checkpoint, chosen_device(device), image_size)
    if host not in _LOCAL:
        typer.echo(
            f"warning: listening at {host}: everybody who reaches this machine can use the page, without a password",
            err=True,
        )
    note = _TINY_NOTE if model == DEFAULT_MODEL else _NOTE
    with (
        serving(_asked(loaded, model), note=note, limits=limits, host=host, port=port, browser=open_browser) as url,
        _ended_by_signals() as ended,  # not before: until the page is there, a signal ends the command at once
    ):
        typer.echo(f"the page is at {url} - Ctrl-C ends it")
        ended.wait()
    typer.echo("ended; the visitors' files are removed")


def _asked(loaded: TrainableModel, model: str) -> Asked:
    """The model, and the methods that can be compared with it: those on the same frozen SAM, without training."""
    from sam_uniref.eval.baselines import Persam
    from sam_uniref.samref import SamRef
    from sam_uniref.web.answers import Asked
    from sam_uniref.web.samples import vocabulary

    methods: dict[str, ExampleMethod] = {}
    if isinstance(loaded, SamRef):
        try:
            methods["PerSAM"] = Persam(loaded.sam)
        except ValueError:  # LoRA in the encoder: that is no SAM as it was released
            methods = {}
    return Asked(loaded, type(loaded).__name__, methods, vocabulary() if model == DEFAULT_MODEL else None)


@contextmanager
def _ended_by_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that what is to be cleaned up is."""
    ended = threading.Event()

    def end(*_: Any) -> None:
        ended.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
