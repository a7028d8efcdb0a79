"""References as people hold them: annotated images, and encoded references that can be saved and used again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from sam_uniref.adapters.references import ReferenceFeatures
from sam_uniref.images import ImageLike, MaskLike, load_image, load_mask
from sam_uniref.nearest import nearest_path
from sam_uniref.state import whole_file

# Fields of a `Reference`, and the kind of what is in them.
_KINDS = {"text": "sentence", "examples": "examples"}
_FIELDS = ("keys", "values", "padding", "pooled")


@dataclass(frozen=True)
class MaskReference:
    """An example: an image and the mask of the object meant in it.

    Attributes:
        image: A path, PIL image, HWC numpy array or CHW tensor.
        mask: A path, PIL image, ``(H, W)`` array or tensor, of the image's size (2 pixels off is mended).
        object_id: Which object, where the mask is a map of several ids.
    """

    image: ImageLike
    mask: MaskLike
    object_id: int | None = None

    def turned(self, quarters: int) -> MaskReference:
        """The same example turned anticlockwise, for objects that may be seen at any angle.

        Args:
            quarters: Turns by 90 degrees; negative ones are clockwise.

        Raises:
            FileNotFoundError: If a path does not exist.
            ValueError: If the image or the mask is not as it must be: see `load_image` and `load_mask`.
        """
        image = load_image(self.image)
        mask = load_mask(self.mask, image.shape[:2], object_id=self.object_id)
        return MaskReference(np.rot90(image, quarters).copy(), np.rot90(mask, quarters).copy())


@dataclass(frozen=True)
class Reference:
    """An encoded reference: made once, used on any number of images.

    Attributes:
        text: One row of text features, or None.
        examples: One row of annotated-image features, or None.
        fingerprint: Of the model that made it, at its image size; another's features mean something else.
    """

    text: ReferenceFeatures | None
    examples: ReferenceFeatures | None
    fingerprint: str

    def kinds(self) -> list[ReferenceFeatures]:
        """What is there, the sentence first (it gives the prompt token)."""
        return [kind for kind in (self.text, self.examples) if kind is not None]

    def save(self, path: str | Path) -> None:
        """Write a ``.safetensors`` file; it is whole or not there."""
        from safetensors.torch import save_file

        tensors: dict[str, Tensor] = {}
        levels = {}
        for kind in _KINDS:
            features = getattr(self, kind)
            if features is not None:
                levels[kind] = len(features.keys)
                for name in _FIELDS:
                    for level, tensor in enumerate(getattr(features, name)):
                        # A sentence's keys and values are one tensor; each file entry is its own.
                        tensors[f"{kind}.{name}.{level}"] = tensor.detach().cpu().clone().contiguous()
        with whole_file(path) as temporary:
            save_file(tensors, temporary, {"fingerprint": self.fingerprint, "levels": json.dumps(levels)})

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> Reference:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file holds no reference.
        """
        from safetensors import SafetensorError, safe_open

        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no reference at {path}{nearest_path(path)}")
        try:
            with safe_open(path, framework="pt", device=str(device)) as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            levels = json.loads(metadata["levels"])
            kinds = {kind: _row(tensors, kind, levels[kind]) if kind in levels else None for kind in _KINDS}
            return cls(**kinds, fingerprint=metadata["fingerprint"])
        except (SafetensorError, KeyError) as error:
            raise ValueError(f"{path} holds no reference saved by sam_uniref ({error})") from error


def _row(tensors: dict[str, Tensor], kind: str, levels: int) -> ReferenceFeatures:
    """One row of features from a file's tensors."""
    fields = {name: tuple(tensors[f"{kind}.{name}.{level}"] for level in range(levels)) for name in _FIELDS}
    device = fields["keys"][0].device
    return ReferenceFeatures(
        **fields,
        present=torch.ones(1, dtype=torch.bool, device=device),
        image_index=torch.zeros(1, dtype=torch.int64, device=device),
        kind=_KINDS[kind],
    )


def fingerprint(model: nn.Module) -> str:
    """A short hash of a model's parameter names, shapes and a few values of each."""
    names = [f"{name}{tuple(parameter.shape)}" for name, parameter in model.named_parameters()]
    values = torch.cat([parameter.detach().flatten()[:16].float() for parameter in model.parameters()])
    return hashlib.sha256("".join(names).encode() + values.cpu().numpy().tobytes()).hexdigest()[:16]
