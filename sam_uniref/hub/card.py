"""Model cards: the README.md of a saved model, for people and for the hub's search."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any, cast

from sam_uniref.config import unknown_key
from sam_uniref.hub.known import find_text_encoder, weights_of_sha256
from sam_uniref.models import class_name
from sam_uniref.packaged import PACKAGED, base_checkpoint
from sam_uniref.version import __version__

if TYPE_CHECKING:
    from sam_uniref.config import BaseSamConfig, PluggedConfig
    from sam_uniref.trainable import TrainableModel

CARD_FILE = "README.md"

# Where SAM's sizes are on the hub, for its tree of models; the checkpoint itself is named in the text.
_BASES = {"vit_b": "facebook/sam-vit-base", "vit_l": "facebook/sam-vit-large", "vit_h": "facebook/sam-vit-huge"}
_TITLES = {
    "samref": "a frozen SAM with a plug-in that injects the reference into its features",
    "refsam": "a frozen SAM that is prompted by words",
    "uniref": "UniRef++, a Deformable-DETR that is told by references what to find",
}
_TASKS = {
    "sentence": ("referring-segmentation", "a sentence: one mask (RIS), in videos one a frame (RVOS)"),
    "example": ("few-shot-segmentation", "annotated example images: the object of their kind (FSS)"),
    "frame": ("video-object-segmentation", "the object's mask in one frame: a mask in every other (VOS)"),
}
_PARTS_OF_NAME = {"text_encoder": 2, "sam": 2}
_SIGNATURE = re.compile(r"\n<!-- written by sam_uniref [\w.+-]+; sha256 of what is above: ([0-9a-f]{64}) -->\n\Z")


@dataclass(frozen=True)
class CardOptions:
    """What a card says beside what the model knows of itself.

    Attributes:
        repo_id: Where the model will be, for the lines that load it.
        licence: Of the trained weights, as the hub's identifier.
        data: What it was trained on: names, or hub ids of data sets.
        metrics: Name to number, or to ``{"value", "low", "high", "n", "unit"}`` as the evaluation writes them; may be
            nested.
        training: The run's configuration. Of folders only the last name is kept.
        note: A paragraph of one's own.
    """

    repo_id: str | None = None
    licence: str = "apache-2.0"
    data: Sequence[str] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    note: str | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any] | None) -> CardOptions:
        """From keywords.

        Raises:
            ValueError: If there is no such option; the nearest is named.
        """
        known = [f.name for f in fields(cls)]
        for name in options or {}:
            if name not in known:
                raise unknown_key(name, known)
        return cls(**(options or {}))


def write_card(model: TrainableModel, folder: Path, old: Path, options: Mapping[str, Any] | None = None) -> None:
    """Write a model's card into a folder, unless a person wrote or changed the one in the folder that it replaces.

    Args:
        model: That is saved.
        folder: That it is written to.
        old: The folder that this one will replace; it need not be there.
        options: As `CardOptions`.
    """
    before = old / CARD_FILE
    if before.is_file() and not is_generated(before.read_text(encoding="utf-8", errors="replace")):
        (folder / CARD_FILE).write_bytes(before.read_bytes())
    else:
        (folder / CARD_FILE).write_text(card_text(model, options), encoding="utf-8")


def is_generated(text: str) -> bool:
    """Whether a card is `card_text`'s to the letter."""
    text = text.replace("\r\n", "\n")
    found = _SIGNATURE.search(text)
    return found is not None and hashlib.sha256(text[: found.start()].encode()).hexdigest() == found[1]


def card_text(model: TrainableModel, options: Mapping[str, Any] | None = None) -> str:
    """A model's card: YAML front matter, what it is, how to load it, what it was trained on and how well it does.

    Args:
        model: It may still be trained.
        options: As `CardOptions`.

    Raises:
        ValueError: If there is no such option.
    """
    given = CardOptions.of(options)
    sections = [
        _introduction(model, given),
        _loading(model, given),
        _weights(model, given),
        _results(given.metrics),
        _training(given.training, given.data),
    ]
    text = f"---\n{_front_matter(model, given)}\n---\n\n" + "\n\n".join(part for part in sections if part) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{text}\n<!-- written by sam_uniref {__version__}; sha256 of what is above: {digest} -->\n"


def _front_matter(model: TrainableModel, given: CardOptions) -> str:
    """What the hub's search reads."""
    from huggingface_hub import ModelCardData

    tags = sorted({"model_hub_mixin", "segmentation", model.config.kind, *(tag for tag, _ in _tasks(model))})
    base = _BASES.get(_base(model).get("size", ""))
    datasets = [name for name in given.data if re.fullmatch(r"[\w.-]+/[\w.-]+", name)]
    data = ModelCardData(
        base_model=base,
        base_model_relation="adapter" if base else None,
        datasets=datasets or None,
        language=["en"] if model.text_encoder is not None else None,
        library_name="sam_uniref",
        license=given.licence,
        pipeline_tag="image-segmentation",
        tags=tags,
    )
    return data.to_yaml().strip()


def _introduction(model: TrainableModel, given: CardOptions) -> str:
    """Title, what it is, what it can be asked by."""
    name = given.repo_id.rsplit("/", 1)[-1] if given.repo_id else f"a {class_name(model.config.kind)}"
    lines = [
        f"# {_plain(name)}",
        "",
        f"Segments the object that a reference points at: {_TITLES[model.config.kind]} (kind `{model.config.kind}`, "
        f"saved by sam_uniref {__version__}). It can be asked by",
        "",
        *(f"- {text}" for _, text in _tasks(model)),
    ]
    return "\n".join([*lines, "", given.note.strip()] if given.note else lines)


def _loading(model: TrainableModel, given: CardOptions) -> str:
    """Five lines of Python."""
    import sam_uniref

    name = class_name(model.config.kind)
    package = "sam_uniref" if name in sam_uniref.__all__ else f"sam_uniref.{model.config.kind}"
    by_words = model.text_encoder is not None
    asked = 'text="the man on the left"' if by_words else 'examples=[MaskReference("cat.jpg", "cat.png")]'
    imported = name if by_words else f"MaskReference, {name}"
    where = given.repo_id or "this/folder"
    return (
        f"## Use\n\n```python\nfrom {package} import {imported}\n\n"
        f'model = {name}.from_pretrained("{where}")\n'
        f'seg = model.segment("street.jpg", {asked})\n'
        "seg.mask, seg.score, seg.box  # (H, W) bool, float, (x0, y0, x1, y1)\n```\n\n"
        f"Or `sam-uniref segment street.jpg --model {where} --out out`, with `--text` or `--example`."
    )


def _weights(model: TrainableModel, given: CardOptions) -> str:
    """What is in the folder and what it stands on."""
    counts = Counter[str]()
    for name, tensor in model.trained_state_dict().items():
        parts = name.split(".")
        counts[".".join(parts[: _PARTS_OF_NAME.get(parts[0], 1)])] += tensor.numel()
    rows = [f"| `{name}` | {count:,} |" for name, count in counts.most_common()]
    lines = ["## Weights", "", f"Licence of what was trained: {_plain(given.licence)}. In safetensors:", ""]
    lines += ["| part | parameters |", "|---|---|", *rows, f"| together | {sum(counts.values()):,} |"]
    return "\n".join([*lines, "", *_base_lines(model), *_text_lines(model)])


def _base_lines(model: TrainableModel) -> list[str]:
    """The base SAM, which the folder does not hold if it has a file of its own."""
    base = _base(model)
    if not base:
        return []
    size, file, sha256 = base.get("size"), base.get("checkpoint"), base.get("sha256")
    if file is None:
        return [
            f"Base model: a SAM `{size}` without a published checkpoint; its weights are in `base_sam.safetensors`."
        ]
    from sam_uniref.hosts.registry import repository_of  # which knows this module

    known, repository = weights_of_sha256(sha256), repository_of(_base_config(model))
    lines = [f"Base model, frozen and not in this folder: SAM `{size}`, `{_plain(file)}`, sha256 `{sha256}`."]
    if file in [base_checkpoint(name).name for name in PACKAGED]:
        lines.append("It comes with sam_uniref.")
    elif known is not None:
        lines.append(f"It is {known.title} ({known.licence}) and is fetched from {known.url} if it is not there.")
    elif repository is not None:
        lines.append(f"If it is not there, it is fetched from {repository} on the hub, if that has this sha256.")
    else:
        lines.append("It is not a published one: put it beside this folder, or give its path with `checkpoint=`.")
    return lines


def _text_lines(model: TrainableModel) -> list[str]:
    """The text encoder."""
    own = model.config.text_encoder
    if own.name is None:
        return ["", "No text encoder: it is not asked in words."]
    known = find_text_encoder(own.name)
    licence = f" ({known.licence})" if known else ""
    name = _last_name(own.name)
    held = "frozen; it comes with sam_uniref" if own.name in PACKAGED else "frozen, fetched by its name"
    held = "its weights were trained and are in this folder" if own.trained else held
    return ["", f"Text encoder: `{_plain(name)}`{licence}, {held}."]


def _results(metrics: Mapping[str, Any]) -> str:
    """A table of numbers, with intervals where there are any."""
    rows = [f"| {_plain(name)} | {value} |" for name, value in _metric_rows(metrics)]
    return "\n".join(["## Results", "", "| metric | value |", "|---|---|", *rows]) if rows else ""


def _metric_rows(metrics: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Leaves of nested metrics, by their path."""
    for key, value in metrics.items():
        name = f"{path} {key}".strip()
        if isinstance(value, Mapping) and "value" in value:
            low, high = value.get("low"), value.get("high")
            interval = "" if low is None or high is None else f" ({_number(low)} to {_number(high)})"
            yield name, f"{_number(value['value'])}{interval}"
        elif isinstance(value, Mapping):
            yield from _metric_rows(value, name)
        elif isinstance(value, int | float):
            yield name, _number(value)


def _number(value: float | int) -> str:
    """Whole numbers whole, others with three digits."""
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def _training(training: Mapping[str, Any], data: Sequence[str]) -> str:
    """Data and configuration."""
    lines = []
    if data:
        lines += ["Data: " + ", ".join(_plain(name) for name in data) + "."]
    if training:
        import yaml

        settings = yaml.safe_dump(_without_folders(training), sort_keys=False, width=100).strip()
        lines += ["", "```yaml", settings.replace("```", ""), "```"]
    return "\n".join(["## Training", "", *lines]) if lines else ""


def _without_folders(value: Any) -> Any:
    """Settings as plain values; of places on the machine that trained only the last name."""
    if isinstance(value, Mapping):
        return {str(key): _without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(inner) for inner in value]
    if isinstance(value, str):
        return _last_name(value)
    return (
        value if value is None or isinstance(value, bool | int | float) else json.loads(json.dumps(value, default=str))
    )


def _last_name(text: str) -> str:
    """A path's last name if it is absolute or leads upward; any other text itself."""
    path = PureWindowsPath(text)  # knows both kinds of slash
    outside = text.startswith(("/", "~", "\\")) or bool(path.drive) or ".." in path.parts
    return path.name if outside else text


def _tasks(model: TrainableModel) -> list[tuple[str, str]]:
    """Tag and description of what a model can be asked by."""
    asked = [] if model.text_encoder is None else ["sentence"]
    if model.config.kind != "refsam":
        asked += ["example", "frame"]
    return [_TASKS[name] for name in asked]


def _base(model: TrainableModel) -> dict[str, Any]:
    """The configuration of the SAM that it is plugged into; empty where there is none."""
    return model.config.to_dict().get("sam") or {}


def _base_config(model: TrainableModel) -> BaseSamConfig:
    """The same, of a model that has one."""
    return cast("PluggedConfig", model.config).sam


def _plain(text: str) -> str:
    """A name in one line, that can't end the code or the table that it stands in."""
    return re.sub(r"[\s|`<>]+", " ", text).strip()
