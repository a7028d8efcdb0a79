"""What a tracker remembers, as tensors by name: a stream that is cut off goes on from them with the same results.

Names are ``frame``, ``size``, ``ids`` (in the order they were added), ``frames.K.keys.LEVEL`` of each reference frame,
once however many objects share it, and ``objects.ID...`` of what is an object's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from sam_uniref.adapters.frames import FrameKeys, FrameReference
from sam_uniref.adapters.references import ReferenceFeatures
from sam_uniref.state import whole_file
from sam_uniref.tracked_object import GivenMask, TrackedObject

_TEXT = ("keys", "values", "padding", "pooled")
_FRAMES = ("examples", "first", "previous")


def pack_objects(objects: Mapping[int, TrackedObject]) -> dict[str, Tensor]:
    """The objects as tensors."""
    packed = {"ids": torch.tensor(list(objects), dtype=torch.int64)}
    numbers: dict[int, int] = {}
    for object_id, tracked in objects.items():
        start = f"objects.{object_id}"
        if tracked.text is not None:
            for field in _TEXT:
                packed |= _levels(f"{start}.text.{field}", getattr(tracked.text, field))
        for kind in _FRAMES:
            reference: FrameReference | None = getattr(tracked, kind)
            if reference is None:
                continue
            frame = reference.frame
            if id(frame) not in numbers:
                numbers[id(frame)] = len(numbers)
                packed |= _levels(f"frames.{numbers[id(frame)]}.keys", frame.keys)
            packed[f"{start}.{kind}.frame"] = torch.tensor(numbers[id(frame)])
            packed |= _levels(f"{start}.{kind}.values", reference.values)
            packed |= _levels(f"{start}.{kind}.pooled", reference.pooled)
        if tracked.given is not None:
            packed[f"{start}.given"] = torch.from_numpy(tracked.given.mask.copy())
    return packed


def unpack_objects(
    packed: Mapping[str, Tensor], frame_references: str, device: torch.device
) -> dict[int, TrackedObject]:
    """What `pack_objects` packed.

    Args:
        packed: Tensors by name.
        frame_references: Which frames of the video the objects keep.
        device: Where the model is.

    Raises:
        ValueError: If a tensor is missing.
    """
    try:
        frames: dict[int, FrameKeys] = {}
        return {
            object_id: _unpack_object(packed, f"objects.{object_id}", frame_references, frames, device)
            for object_id in packed["ids"].tolist()
        }
    except KeyError as error:
        raise ValueError(f"this is no state of a tracker: there is no {error}") from error


def _unpack_object(
    packed: Mapping[str, Tensor], start: str, frame_references: str, frames: dict[int, FrameKeys], device: torch.device
) -> TrackedObject:
    """One object; ``frames`` are those of the objects before it, and it adds its own."""
    tracked = TrackedObject(frame_references)
    if f"{start}.text.keys.0" in packed:
        fields = {field: _read_levels(packed, f"{start}.text.{field}", device) for field in _TEXT}
        present = torch.ones(1, dtype=torch.bool, device=device)
        tracked.text = ReferenceFeatures(**fields, present=present, image_index=present.long() - 1, kind="sentence")
    for kind in _FRAMES:
        if f"{start}.{kind}.frame" not in packed:
            continue
        number = int(packed[f"{start}.{kind}.frame"])
        if number not in frames:
            frames[number] = FrameKeys(_read_levels(packed, f"frames.{number}.keys", device))
        values, pooled = (_read_levels(packed, f"{start}.{kind}.{field}", device) for field in ("values", "pooled"))
        setattr(tracked, kind, FrameReference(frames[number], values, pooled))
    if f"{start}.given" in packed:
        tracked.given = GivenMask(
            packed[f"{start}.given"].numpy(), f"the mask of {start.replace('objects.', 'object ')}"
        )
    return tracked


def write_state(path: str | Path, packed: Mapping[str, Tensor], fingerprint: str) -> None:
    """A ``.safetensors`` file; whole or not there."""
    from safetensors.torch import save_file

    # A sentence's keys and values are one tensor; each file entry is its own.
    copies = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in packed.items()}
    with whole_file(path) as temporary:
        save_file(copies, temporary, {"fingerprint": fingerprint})


def read_state(path: str | Path, fingerprint: str) -> dict[str, Tensor]:
    """What `write_state` wrote for this model.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no state of a tracker, or another model's.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no state of a tracker at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            made_by = (file.metadata() or {}).get("fingerprint")
            packed = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError as error:
        raise ValueError(f"{path} holds no state of a tracker ({error})") from error
    if made_by != fingerprint:
        raise ValueError(f"{path} was saved with another model ({made_by}, this is {fingerprint})")
    return packed


def _levels(name: str, tensors: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """A name a level."""
    return {f"{name}.{level}": tensor for level, tensor in enumerate(tensors)}


def _read_levels(packed: Mapping[str, Tensor], name: str, device: torch.device) -> tuple[Tensor, ...]:
    """What `_levels` named; at least one."""
    levels = [packed[f"{name}.0"]]
    while f"{name}.{len(levels)}" in packed:
        levels.append(packed[f"{name}.{len(levels)}"])
    return tuple(level.to(device) for level in levels)
