"""Checkpoints of the published UniRef++ (FoundationVision/UniRef, projects/UniRef), R50 and Swin-L, as ours and back.

By an explicit table of names (`sam_uniref.detr.official_names`): every tensor of a file is accounted for, or nothing is
converted. What differs beside the names:

* The mask encoder's convolutions have biases there, before batch normalisation on stored statistics. Ours have none;
  the bias is taken off the stored mean, which is the same function.
* The heads of the decoder are there under two names.
* BERT's pooler and BoxInst's counter are there and never used.

On the way back biases, pooler and counter are zeros, so that names and shapes are the published ones and the function
is the same; and forth again gives our tensors exactly. A folder that `save_converted` wrote also keeps what a `UniRef`
has no place for, and gives back the published tensors themselves. A model that was trained on and saved anew does not.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sam_uniref.checkpoint import model_folder
from sam_uniref.detr.backbone import build_backbone
from sam_uniref.detr.checkpoint import WEIGHTS_FILE, wrap_text_model
from sam_uniref.detr.config import UniRefConfig
from sam_uniref.detr.official_names import Part, published_parts
from sam_uniref.detr.uniref import UniRef
from sam_uniref.state import compare_names

# Beside a converted model: what it has no place for. Its metadata names the parts that the published file had.
KEPT_FILE = "published.safetensors"
_PARTS_KEY = "parts"
_CLASS_HEAD = "detr.detr.class_embed.0.weight"
# A name that only one size has.
_SIGNS = {
    "r50": "detr.detr.backbone.0.backbone.stem.conv1.weight",
    "swinl": "detr.detr.backbone.0.backbone.patch_embed.proj.weight",
}
# Which parts a file has after each stage of training, the smaller sets first.
_STAGES = (
    ("detector",),
    ("detector", "fusion", "text encoder"),
    ("detector", "fusion", "text encoder", "mask encoder"),
)
# Options of a configuration that a trained model does not depend on.
_OF_TRAINING = ("dropout", "drop_path", "frozen_stages", "look_forward_twice", "zero_init")


@dataclass(frozen=True)
class PublishedWeights:
    """A published state dict, taken apart.

    Attributes:
        config: Of the `UniRef` that behaves as the published model.
        parts: Which of `published_parts` there are.
        state_dict: Those parts' tensors by our names.
        kept: Tensors by their published names that a `UniRef` has no place for, and the means they went into.
    """

    config: UniRefConfig
    parts: tuple[str, ...]
    state_dict: dict[str, Tensor]
    kept: dict[str, Tensor]

    @property
    def fresh(self) -> tuple[str, ...]:
        """Which of `published_parts` the file does not have: a `UniRef` begins them anew, or has no sentences."""
        return tuple(name for name in _STAGES[-1] if name not in self.parts)


def is_published(names: Iterable[str]) -> bool:
    """Whether these are names of a published UniRef's tensors, of whatever size."""
    return any(name.startswith("detr.detr.") for name in names)


def convert_published(state_dict: Mapping[str, Tensor]) -> PublishedWeights:
    """Names and tensors of a published UniRef to those of ours.

    Args:
        state_dict: The published one, of any stage of training.

    Raises:
        ValueError: If the backbone is neither ResNet-50 nor Swin-L, or a tensor is missing, unknown, of another shape
            or of another value than it must have; all of them are named. What must be there is what the first stage
            of training has whose parts include all those that there is anything of.
    """
    size = _size(state_dict)
    parts = _stage_parts(size, state_dict)
    _check_published(state_dict, parts.values())
    config = _published_config(size, state_dict[_CLASS_HEAD].shape[0], parts)
    ours: dict[str, Tensor] = {}
    kept: dict[str, Tensor] = {}
    for part in parts.values():
        means = {mean: bias for bias, mean in part.biases.items()}
        for published, own in part.names.items():
            tensor = state_dict[published]
            if published in means:
                kept[published] = tensor
                tensor = tensor - state_dict[means[published]]
            ours |= zip(own, tensor.chunk(len(own)) if len(own) > 1 else [tensor], strict=True)
        for name in (*part.biases, *part.unused, *part.outdated):
            if name in state_dict:
                kept[name] = state_dict[name]
    names = _our_names(parts.values())
    wanted = {name: shape for name, shape in published_shapes(config).items() if name in names}
    compare_names(ours, wanted, "the published checkpoint")
    return PublishedWeights(config, tuple(parts), ours, kept)


def restore_published(
    state_dict: Mapping[str, Tensor],
    config: UniRefConfig,
    *,
    parts: Iterable[str] | None = None,
    kept: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Names and tensors of a `UniRef` to the published ones.

    Args:
        state_dict: All of the model's.
        config: Its configuration.
        parts: Which of `published_parts` to write; by default all that the model has.
        kept: What `convert_published` kept.

    Raises:
        ValueError: If the model is not one that the published code can be: another architecture, or options that it
            does not have.
    """
    given = ("detector", "fusion", "mask encoder", *(["text encoder"] if config.text_encoder.name else []))
    chosen = tuple(given if parts is None else parts)
    _check_restorable(config, chosen)
    table = [part for name, part in published_parts(config.size).items() if name in chosen]
    names = _our_names(table)
    expected = {name: shape for name, shape in published_shapes(config).items() if name in names}
    own = {name: tensor for name, tensor in state_dict.items() if name in names or parts is None}
    compare_names(own, expected, "the model, taken for a published one,")
    published: dict[str, Tensor] = {}
    for part in table:
        for name, sources in part.names.items():
            tensors = [own[source] for source in sources]
            published[name] = tensors[0] if len(tensors) == 1 else torch.cat(tensors)
        published |= {alias: published[name] for alias, name in part.aliases.items()}
        published |= {bias: torch.zeros_like(published[mean]) for bias, mean in part.biases.items()}
        published |= part.constants
        published |= {name: torch.zeros(shape) for name, shape in part.unused.items()}
    return published | dict(kept or {})


def published_shapes(config: UniRefConfig) -> dict[str, Tensor]:
    """Our names and shapes of a published model with all its parts: tensors without memory."""
    from transformers import BertConfig, BertModel

    published = _published_config(config.size, config.classes, ("text encoder", "mask encoder"))
    with torch.device("meta"):
        text_model = BertModel(BertConfig(), add_pooling_layer=False)
    return UniRef.skeleton(config.size, (text_model, None), config=published).state_dict()


def model_from_published(weights: PublishedWeights, text_encoder: str | Path = "bert-base-uncased") -> UniRef:
    """A `UniRef` with the weights and the behaviour of a published one; parts that it lacks are fresh.

    Args:
        weights: From `convert_published`.
        text_encoder: Hub id or folder for the tokenizer and configuration; its weights are the published ones.

    Raises:
        FileNotFoundError: If the text encoder is not there.
        ValueError: If it is no BERT-base.
    """
    from sam_uniref.adapters import load_text_model

    config = weights.config
    text = None
    if "text encoder" in weights.parts:
        config.text_encoder.name = str(text_encoder)
        text = wrap_text_model(*load_text_model(text_encoder, random_weights=True), config)
    model = UniRef(build_backbone(config.backbone), text, config)
    wanted = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if name in weights.state_dict or name.startswith("text_encoder.")
    }
    compare_names(weights.state_dict, wanted, f"the checkpoint, with {str(text_encoder)!r} as its text encoder,")
    model.load_state_dict(weights.state_dict, strict=False)
    return model


def save_converted(model: UniRef, weights: PublishedWeights, folder: str | Path) -> None:
    """Write a folder that `UniRef.from_pretrained` reads and that goes back to the published tensors themselves.

    Raises:
        FileExistsError: If there is something else than a saved model, which would be replaced.
    """
    from safetensors.torch import save_file

    with model_folder(model, folder, WEIGHTS_FILE) as temporary:
        kept = {name: tensor.clone().contiguous() for name, tensor in weights.kept.items()}
        save_file(kept, temporary / KEPT_FILE, {"format": "pt", _PARTS_KEY: json.dumps(weights.parts)})


def read_kept(folder: str | Path) -> tuple[dict[str, Tensor], tuple[str, ...] | None]:
    """What `save_converted` kept, and which parts the published file had; nothing and None for another folder.

    Raises:
        ValueError: If the file is broken.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(folder) / KEPT_FILE
    if not path.is_file():
        return {}, None
    try:
        with safe_open(path, framework="pt") as file:
            parts = tuple(json.loads(file.metadata()[_PARTS_KEY]))
            return {name: file.get_tensor(name) for name in file.keys()}, parts  # noqa: SIM118 - not a dict
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not what a conversion wrote ({error}); convert the checkpoint again") from error


def _size(names: Iterable[str]) -> str:
    """Which of the published models these names are of."""
    there = set(names)
    sizes = [size for size, sign in _SIGNS.items() if sign in there]
    if len(sizes) != 1:
        raise ValueError(
            "the checkpoint's backbone is neither ResNet-50 nor Swin-L, the published ones: of "
            f"{list(_SIGNS.values())} there must be one, and there are {len(sizes)}"
        )
    return sizes[0]


def _stage_parts(size: str, names: Iterable[str]) -> dict[str, Part]:
    """The parts of the first stage of training that has a place for all these names which are known at all."""
    there, known = set(names), published_parts(size)
    begun = {name for name, part in known.items() if not part.known().isdisjoint(there)}
    stage = next(stage for stage in _STAGES if begun <= set(stage))
    return {name: known[name] for name in stage}


def _published_config(size: str, classes: int, parts: Iterable[str]) -> UniRefConfig:
    """Of the `UniRef` that behaves as the published one."""
    config = UniRefConfig.for_size(size)
    config.classes = classes
    config.text_encoder.trained = "text encoder" in parts
    if "mask encoder" in parts:
        # Without one in the file, a fresh one is to be trained our way.
        config.mask_encoder.norm, config.pooling = "batch", "image"
    return config


def _our_names(parts: Iterable[Part]) -> set[str]:
    """All our names in a table."""
    return {own for part in parts for sources in part.names.values() for own in sources}


def _check_published(state_dict: Mapping[str, Tensor], parts: Iterable[Part]) -> None:
    """Refuse a file with tensors too few or too many, or others than it must have."""
    parts = list(parts)
    missing = {name for part in parts for name in (*part.names, *part.biases)} - state_dict.keys()
    unknown = state_dict.keys() - set().union(*(part.known() for part in parts))
    other = set()
    for part in parts:
        for alias, name in part.aliases.items():
            if {alias, name} <= state_dict.keys() and not torch.equal(state_dict[alias], state_dict[name]):
                other.add(alias)
        for name, table in part.constants.items():
            if name in state_dict and not torch.equal(state_dict[name], table):
                other.add(name)
        for name, shape in part.unused.items():
            if name in state_dict and state_dict[name].shape != shape:
                other.add(name)
    problems = [
        f"{len(names)} {what}: {', '.join(sorted(names))}"
        for what, names in (
            ("missing", missing),
            ("unknown", unknown),
            ("different from the tensors they must be like", other),
        )
        if names
    ]
    if problems:
        raise ValueError(f"this is not a published UniRef checkpoint as it is known; tensors are {'; '.join(problems)}")


def _check_restorable(config: UniRefConfig, parts: Iterable[str]) -> None:
    """Refuse what the published code does not have, also where no name or shape would tell."""
    if config.size not in _SIGNS:
        raise ValueError(f"only the sizes {tuple(_SIGNS)} were published, and this is {config.size!r}")
    published = _options(_published_config(config.size, config.classes, parts))
    own = _options(config)
    other = [f"{name} is {own[name]!r} and not {value!r}" for name, value in published.items() if own[name] != value]
    if other:
        raise ValueError(f"the published code has no such UniRef: {', '.join(other)}")


def _options(config: UniRefConfig) -> dict[str, Any]:
    """What a model's answers depend on beside its weights, by dotted name."""
    values = asdict(config)
    options = {name: values[name] for name in ("pooling", "iou_head")}
    for section in ("backbone", "transformer", "mask_head", "mask_encoder", "fusion"):
        options |= {f"{section}.{name}": value for name, value in values[section].items() if name not in _OF_TRAINING}
    return options
