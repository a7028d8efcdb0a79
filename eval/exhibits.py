"""What a gallery shows: models' answers to the first episodes of RefShapes validation, task by task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm.auto import tqdm

from sam_uniref import page
from sam_uniref.data.batch import Sample, Task
from sam_uniref.data.refshapes import NamedClip, RefShapesDataset, Style
from sam_uniref.eval.figures import write_figure
from sam_uniref.eval.painting import ANSWER, TRUTH, enlarged, side_by_side, singled_out, strip_frames, tinted, with_ids
from sam_uniref.eval.protocols.few_shot import SHOTS
from sam_uniref.eval.protocols.tracks import encoded
from sam_uniref.eval.protocols.video_objects import follow_objects, prediction_of
from sam_uniref.eval.refshapes_protocol import PROTOCOLS, SOURCES, clip_case
from sam_uniref.eval.regions import overlap
from sam_uniref.images import RGB, Mask
from sam_uniref.predictor import Predictor
from sam_uniref.reference import MaskReference
from sam_uniref.tracking import FrameResult
from sam_uniref.video_writing import write_video

FILM = "tracking.mp4"
FILM_FRAMES, FRAMES_A_SECOND = 48, 8


@dataclass(frozen=True)
class Exhibits:
    """Writes the pictures and the video of a gallery, and says how they hang.

    Attributes:
        models: By what the page calls them; shown in this order.
        folder: Which the page is in; it has a folder `PICTURES`.
        count: Scenes or clips of each task.
        style: Of RefShapes.
    """

    models: Mapping[str, Predictor]
    folder: Path
    count: int
    style: Style

    def page(self, generator: str) -> str:
        """Ask all models everything, and return the page's HTML, which says that ``generator`` wrote it."""
        introduction = [
            f"Scenes and clips are the first {self.count} of RefShapes validation ({self.style} style), whatever the "
            "answers to them are: none was picked. Training never draws them.",
            "Green is the truth, orange an answer; where several objects are tracked, each has a colour of its own. "
            "IoU is the overlap of an answer and the truth, J&F what DAVIS measures of a track; both are from 0 to 1.",
        ]
        sections = [
            page.section("Sentences", "A sentence names one object of a scene.", self._sentences()),
            page.section(
                "Examples",
                f"{max(SHOTS)} scenes in each of which an object of a class is marked, then a scene with another one. "
                "No training has shapes of these classes.",
                self._examples(),
            ),
            page.section(
                "First frame",
                "The mask of an object is given in the frame in which it appears, most often the first, and is shown "
                "there as it was given. From then on the object is tracked, beside the others.",
                self._first_frames(),
            ),
            page.section(
                "Sentence in a video",
                "A sentence names one object of a clip, and nothing else is given: the first sentence about the first "
                "object of each clip.",
                self._sentences_in_clips(),
            ),
            page.section(
                "Video",
                f"Clip 1 of the validation, drawn with {FILM_FRAMES} frames. Masks are given as under First frame.",
                [self._film()],
            ),
        ]
        title = "What the model answers" if len(self.models) == 1 else "What the models answer"
        return page.document(title, introduction, sections, generator=generator)

    def _episodes(self, task: Task) -> Iterator[tuple[str, int, RefShapesDataset]]:
        """What the pictures of an episode are called, its index, and its data set."""
        data = SOURCES[task](task, self.count, self.style).data
        for index in tqdm(range(self.count), desc=f"gallery {task}", unit="episode", mininterval=1.0):
            yield f"{task}-{index + 1}", index, data

    def _sentences(self) -> Iterator[str]:
        for name, index, data in self._episodes("ris"):
            sample = data.episode(index)
            asked = f"“{sample.sentence}”"
            answers = {label: model.segment(sample.image, text=sample.sentence) for label, model in self.models.items()}
            figures = self._answered(name, sample, asked, {label: answer.mask for label, answer in answers.items()})
            yield page.case(asked, [page.row(figures)])

    def _examples(self) -> Iterator[str]:
        for name, index, data in self._episodes("fss"):
            sample = data.episode(index)
            shape = sample.name.rsplit(maxsplit=1)[-1]
            supports = [
                self._figure(
                    f"{name}-example-{k}",
                    singled_out(support.image, support.mask, TRUTH),
                    f"A scene with the {shape} marked",
                    f"example {k}",
                )
                for k, support in enumerate(sample.references, start=1)
            ]
            examples = [MaskReference(support.image, support.mask) for support in sample.references]
            answers = {label: model.segment(sample.image, examples=examples) for label, model in self.models.items()}
            masks = {label: answer.mask for label, answer in answers.items()}
            figures = self._answered(name, sample, f"the {shape}", masks)
            yield page.case(f"Class: {shape}", [page.row(supports, small=True), page.row(figures)])

    def _answered(self, name: str, sample: Sample, asked: str, masks: Mapping[str, Mask]) -> list[str]:
        """Figures of a scene, its true mask, and each model's with its IoU."""
        figures = [
            self._figure(f"{name}-scene", sample.image, f"The scene of {asked}", "scene"),
            self._figure(f"{name}-truth", tinted(sample.image, sample.mask, TRUTH), f"The true mask: {asked}", "truth"),
        ]
        for number, (label, mask) in enumerate(masks.items(), start=1):
            caption = f"{label}: IoU {overlap(mask, sample.mask).iou():.3f}"
            painted = tinted(sample.image, mask, ANSWER)
            figures.append(self._figure(f"{name}-answer-{number}", painted, f"{label}, asked for {asked}", caption))
        return figures

    def _first_frames(self) -> Iterator[str]:
        for name, index, data in self._episodes("vos"):
            clip = data.clip(index)
            truth = [with_ids(*frame) for frame in zip(clip.frames, clip.ids, strict=True)]
            tracks = {}
            for label, model in self.models.items():
                results, score = track_objects(model, clip)
                painted = [with_ids(clip.frames[result.index], result.labels) for result in results]
                tracks[f"{label}: J&F {score:.3f}"] = painted
            count = len(clip.first_frames)
            yield self._tracked(name, f"Clip {index + 1}, {count} objects", clip, truth, tracks)

    def _sentences_in_clips(self) -> Iterator[str]:
        for name, index, data in self._episodes("rvos"):
            clip = data.clip(index)
            object_id, sentences = next(iter(clip.sentences.items()))
            masks = clip.ids == object_id
            truth = [tinted(*frame, TRUTH) for frame in zip(clip.frames, masks, strict=True)]
            tracks = {}
            for label, model in self.models.items():
                results = list(model.track(list(clip.frames), texts={object_id: sentences[0]}))
                score = _sentence_score(clip, object_id, results)
                painted = [tinted(clip.frames[r.index], r.masks[object_id], ANSWER) for r in results]
                tracks[f"{label}: J&F {score:.3f}"] = painted
            yield self._tracked(name, f"“{sentences[0]}”", clip, truth, tracks)

    def _tracked(
        self, name: str, title: str, clip: NamedClip, truth: Sequence[RGB], tracks: Mapping[str, Sequence[RGB]]
    ) -> str:
        """Strips of some frames of a clip: as they are, with the truth, and with each track, by its caption."""
        frames = strip_frames(len(clip.frames))
        rows: dict[str, Sequence[RGB]] = {"clip": list(clip.frames), "truth": truth, **tracks}
        strips = [
            self._figure(
                f"{name}-{'clip' if k == 0 else 'truth' if k == 1 else f'answer-{k - 1}'}",
                side_by_side([pictures[t] for t in frames]),
                f"{title}: {caption}",
                caption,
                wide=True,
            )
            for k, (caption, pictures) in enumerate(rows.items())
        ]
        return page.case(f"{title}: frames {', '.join(str(t + 1) for t in frames)} of {len(clip.frames)}", strips)

    def _film(self) -> str:
        label, model = list(self.models.items())[-1]
        clip = RefShapesDataset("refshapes", "vos", frames=FILM_FRAMES, style=self.style, episodes=1).clip(0)
        results, score = track_objects(model, clip)
        pictures = (
            enlarged(side_by_side([frame, with_ids(frame, ids), with_ids(frame, result.labels)]), 3)
            for frame, ids, result in zip(clip.frames, clip.ids, results, strict=True)
        )
        write_video(self.folder / FILM, pictures, frames_per_second=FRAMES_A_SECOND)
        return page.film(FILM, ["clip", "truth", f"{label}: J&F {score:.3f}"])

    def _figure(self, name: str, picture: RGB, alternative: str, caption: str, *, wide: bool = False) -> str:
        """Write a picture, enlarged, and return its figure."""
        return write_figure(self.folder, name, enlarged(picture, 2 if wide else 3), alternative, caption, wide=wide)


def track_objects(model: Predictor, clip: NamedClip) -> tuple[list[FrameResult], float]:
    """A result a frame of all objects tracked as the evaluation does, and their J&F, 0-1."""
    case, protocol = clip_case("clip", clip), PROTOCOLS["vos"](1)
    results = list(follow_objects(model, case))
    scores = protocol.judge(case, prediction_of(case, results))
    return results, protocol.summarise(scores)["J&F"]


def _sentence_score(clip: NamedClip, object_id: int, results: Sequence[FrameResult]) -> float:
    """J&F, 0-1, of what was tracked by the first sentence about an object."""
    case, protocol = clip_case("clip", clip), PROTOCOLS["rvos"](1)
    item = next(item for item in case.objects if item.id == object_id)
    answer = next(iter(item.sentences))
    case = replace(case, objects=(replace(item, sentences={answer: item.sentences[answer]}),))
    masks = ({answer: result.masks[object_id]} for result in results)
    return protocol.summarise(protocol.judge(case, encoded(case, [answer], masks)))["J&F"]
