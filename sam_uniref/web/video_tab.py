"""The tab in which objects are followed through a video."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from sam_uniref.images import load_image
from sam_uniref.palette import id_color
from sam_uniref.web.limits import RefusedError
from sam_uniref.web.marks import read_marks
from sam_uniref.web.pad import PAINT, pad
from sam_uniref.web.samples import clip_samples
from sam_uniref.web.site import EVENT, PICTURES, VIDEOS, Site, remember_upload, sample_strip, told
from sam_uniref.web.tracks import follow, next_object
from sam_uniref.web.uploads import UploadedVideo, checked_ids, checked_video, resized
from sam_uniref.web.visits import VideoObject, Visit

_PLACE = "frame"
_NO_VIDEO = "There is no video yet; choose one, or take one of the examples."


def video_tab(site: Site) -> None:
    """Build the tab and wire it."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=1):
            upload = gr.UploadButton("Choose a video", file_types=["video", ".gif"], elem_id="video_upload", size="sm")
            frame = pad("frame", tools=PAINT, upload="video_upload", empty="Choose a video, or drop one here")
            number = gr.Slider(0, 1, value=0, step=1, label="Frame", elem_id="frame_number", visible="hidden")
            sentence = gr.Textbox(
                label="or name it", placeholder="the red triangle", elem_id="object_sentence",
                max_length=site.limits.sentence,
            )  # fmt: skip
            with gr.Row():
                add = gr.Button("Add this object", size="sm", elem_id="add_object", min_width=100)
                masks = gr.UploadButton(
                    "Add by a mask", file_types=["image"], size="sm", elem_id="ids_upload", min_width=100
                )
                drop = gr.Button("Start over", size="sm", elem_id="drop_objects", min_width=100)
            objects = gr.HTML(elem_id="objects")
            go = gr.Button("Follow", variant="primary", elem_id="follow")
        with gr.Column(scale=1):
            overlay = gr.Video(
                label="Followed", interactive=False, elem_id="video_overlay", autoplay=True, loop=True, buttons=[]
            )
            caption = gr.Markdown(elem_id="video_caption")
            files = gr.File(label="Take home", interactive=False, visible="hidden", elem_id="video_files")
            samples = sample_strip("clip_samples", [(s.frames[0], s.caption) for s in clip_samples()], columns=3)
    handlers = _Handlers(site)
    given = [frame, number, objects, overlay, caption, files]
    results = [overlay, caption, files]
    upload.upload(told(handlers.take_video), upload, given, **VIDEOS)
    number.release(told(handlers.show_frame), number, frame, **EVENT)
    add.click(told(handlers.add_object), [frame, sentence], [frame, sentence, objects], **PICTURES)
    masks.upload(told(handlers.add_masks), masks, objects, **EVENT)
    drop.click(told(handlers.start_over), None, [frame, sentence, objects], **EVENT)
    go.click(told(handlers.follow), [frame, sentence], [sentence, objects, *results], **VIDEOS)
    samples.select(told(handlers.sample), None, [*given, sentence], **VIDEOS).success(
        told(handlers.follow), [frame, sentence], [sentence, objects, *results], **VIDEOS
    )


class _Handlers:
    """What the tab's events do."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def take_video(self, file: str, request: gr.Request) -> tuple[Any, ...]:
        """Check an uploaded video and show its first frame."""
        visit = self._site.visit(request)
        return self._show(visit, self._checked(visit, remember_upload(visit, file)), request)

    def _checked(self, visit: Visit, path: Path) -> UploadedVideo:
        visit.video = None
        visit.objects.clear()
        visit.places.pop(_PLACE, None)
        visit.video = checked_video(path, visit.fresh_folder("video"), self._site.limits)
        return visit.video

    def _show(self, visit: Visit, video: UploadedVideo, request: gr.Request) -> tuple[Any, ...]:
        """The tab with a new video in it."""
        last = len(video.previews) - 1
        slider = gr.update(maximum=max(last, 1), value=0, visible=True if last else "hidden")
        frames = f"{last + 1} frame{'s' if last else ''}"
        caption = f"{frames}, {video.size[1]} x {video.size[0]}. {video.note}"
        hidden = gr.update(value=None, visible="hidden")
        return self._frame(video, 0, request), slider, _listed(visit.objects), None, caption, hidden

    def _frame(self, video: UploadedVideo, number: int, request: gr.Request) -> dict[str, Any]:
        """A frame to be marked."""
        self._site.visit(request).frame = number
        return self._site.show(load_image(video.previews[number]), _PLACE, request)

    def show_frame(self, number: float, request: gr.Request) -> dict[str, Any]:
        """Another frame to be marked."""
        video = _video(self._site.visit(request))
        return self._frame(video, _checked_number(number, video), request)

    def add_object(self, value: object, words: str, request: gr.Request) -> tuple[Any, ...]:
        """Put what is marked or named to the objects."""
        visit = self._site.visit(request)
        video = _video(visit)
        self._add(visit, value, words)
        return self._frame(video, visit.frame, request), "", _listed(visit.objects)

    def _add(self, visit: Visit, value: object, words: str) -> None:
        """Put what is marked or named to the objects, at the video's own size."""
        video = _video(visit)
        sentence = self._site.limits.check_sentence(words)
        self._site.asked.check_words(sentence)
        placed = visit.placed(_PLACE, "video")
        mask = self._site.asked.mask_at(placed.picture, read_marks(value, placed.picture.shape[:2], placed.number))
        next_object(
            visit, self._site.limits, visit.frame, None if mask is None else resized(mask, video.size), sentence
        )

    def add_masks(self, file: str, request: gr.Request) -> str:
        """Add every object of an uploaded mask."""
        visit = self._site.visit(request)
        video = _video(visit)
        ids = checked_ids(remember_upload(visit, file), video.size, self._site.limits)
        for object_id in sorted(set(ids[ids > 0].tolist())):
            next_object(visit, self._site.limits, visit.frame, ids == object_id, None)
        return _listed(visit.objects)

    def start_over(self, request: gr.Request) -> tuple[Any, ...]:
        """Forget the objects."""
        visit = self._site.visit(request)
        visit.objects.clear()
        frame = None if visit.video is None else self._frame(visit.video, visit.frame, request)
        return frame, "", _listed([])

    def follow(
        self,
        value: object,
        words: str,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - Gradio finds it by its default
    ) -> tuple[Any, ...]:
        """Follow the objects; what is marked or named and not added yet is one of them."""
        visit = self._site.visit(request)
        video = _video(visit)
        if not visit.objects:
            self._add(visit, value, words)
        done = follow(
            self._site.asked,
            video,
            list(visit.objects),
            visit.fresh_folder("followed"),
            lambda count, total: progress((count, total), desc="following", unit="frames"),
        )
        seen = "; ".join(f"object {i}: in {n} of {done.frames} frames" for i, n in done.seen.items())
        files = gr.update(value=[str(done.overlay), str(done.masks), str(done.rle)], visible=True)
        return "", _listed(visit.objects), str(done.overlay), f"{seen}. {video.note}", files

    def sample(self, chosen: gr.SelectData, request: gr.Request) -> tuple[Any, ...]:
        """Show one of the page's own clips."""
        visit, picked = self._site.visit(request), clip_samples()[int(chosen.index)]
        video = self._checked(visit, picked.write(visit.folder / "sample.mp4"))
        next_object(visit, self._site.limits, 0, picked.mask, picked.sentence)
        return *self._show(visit, video, request), ""


def _video(visit: Visit) -> UploadedVideo:
    """The visitor's video.

    Raises:
        RefusedError: If there is none.
    """
    if visit.video is None:
        raise RefusedError(_NO_VIDEO)
    return visit.video


def _checked_number(number: object, video: UploadedVideo) -> int:
    """A frame's number, which the browser sends."""
    if not isinstance(number, int | float) or not 0 <= number < len(video.previews):
        raise RefusedError(f"The video has frames 0 to {len(video.previews) - 1}.")
    return int(number)


def _listed(objects: list[VideoObject]) -> str:
    """The objects in their colours."""
    items = []
    for entry in objects:
        color = "rgb({}, {}, {})".format(*id_color(entry.object_id))
        what = escape(entry.sentence) if entry.sentence else "marked"
        where = f" from frame {entry.frame}" if entry.frame else ""
        items.append(f'<li><i style="background:{color}"></i>{entry.object_id}: {what}{where}</li>')
    return f'<ul class="objects">{"".join(items)}</ul>' if items else ""
