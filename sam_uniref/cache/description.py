"""What a cache is of: encoder, input, levels, precision. Features of anything else are refused by it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from torch import nn

from sam_uniref.cache.layout import RecordLayout
from sam_uniref.interfaces import ImageBackbone
from sam_uniref.sam.image_encoder import PRECISIONS, ImageEncoder
from sam_uniref.state import write_json

DESCRIPTION_FILE = "cache.json"
# Raised when the files change: caches of another version are refused with advice, not misread.
VERSION = 1


@dataclass(frozen=True)
class CacheDescription:
    """All that decides which features a picture has.

    Attributes:
        encoder: Hash of the encoder's weights, structure and normalisation; see `encoder_hash`.
        image_size: Side of the input square in pixels.
        shapes: Per level ``(C, h, w)``.
        precision: The features are kept in; one of `PRECISIONS`.
        computed_in: What the encoder calculated in: ``float32``, or ``bfloat16`` where autocast chose it; ``bf16`` or
            ``fp16`` where the weights of its matrix products were held in that.
        version: Of the files.
    """

    encoder: str
    image_size: int
    shapes: tuple[tuple[int, int, int], ...]
    precision: str
    computed_in: str = "float32"
    version: int = VERSION

    @classmethod
    def of(cls, backbone: ImageBackbone, precision: str, computed_in: str | None = None) -> CacheDescription:
        """Of what a frozen encoder gives, by default in the precision that it is held in."""
        computed = held_precision(backbone) if computed_in is None else computed_in
        hashed = encoder_hash(backbone, computed)
        return cls(hashed, backbone.transform.size, level_shapes(backbone), precision, computed)

    @property
    def layout(self) -> RecordLayout:
        """Of one picture's features."""
        return RecordLayout(self.shapes, self.precision)

    @property
    def digest(self) -> str:
        """A hash of all of it, by which shards know what they belong to."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:32]

    def write(self, folder: Path) -> None:
        """Put it into a cache's folder, unless there is one.

        Raises:
            ValueError: If the folder holds a cache of something else.
        """
        path = folder / DESCRIPTION_FILE
        if not path.exists():
            write_json(path, asdict(self))
        read_description(folder).check(self, folder)

    def check(self, wanted: CacheDescription, folder: Path) -> None:
        """Refuse features of another kind.

        Raises:
            ValueError: Naming what differs.
        """
        differing = [
            f"{f.name} {getattr(self, f.name)} instead of {getattr(wanted, f.name)}"
            for f in fields(self)
            if getattr(self, f.name) != getattr(wanted, f.name)
        ]
        if differing:
            raise ValueError(
                f"{folder} is a cache of something else: {'; '.join(differing)}; give another folder, or remove it"
            )


def read_description(folder: str | Path) -> CacheDescription:
    """What the cache in a folder is of.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it can't be read, or is of another version.
    """
    path = Path(folder) / DESCRIPTION_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} is no cache of features, it has no {DESCRIPTION_FILE}; make one with: "
            f"sam-uniref cache --data DATA --model MODEL --out {folder}"
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["version"] != VERSION:
            raise ValueError(f"it has version {values['version']}, this library reads {VERSION}")
        shapes = tuple((int(c), int(h), int(w)) for c, h, w in values.pop("shapes"))
        described = CacheDescription(shapes=shapes, **values)
        described.layout  # noqa: B018  an unknown precision is found now
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} can't be read ({error}); remove {folder} and make the cache again") from error
    return described


def level_shapes(backbone: ImageBackbone) -> tuple[tuple[int, int, int], ...]:
    """Per level ``(C, h, w)`` of a picture in a square input."""
    side = backbone.transform.size
    return tuple((backbone.channels, side // stride, side // stride) for stride in backbone.strides)


def held_precision(backbone: ImageBackbone) -> str:
    """That an encoder's weights are held in; only SAM's own has a choice."""
    return backbone.encoder.precision if isinstance(backbone.encoder, ImageEncoder) else "float32"


def encoder_hash(backbone: ImageBackbone, computed_in: str = "float32") -> str:
    """A hash of everything that a frozen encoder's answer depends on but the pixels.

    The names and shapes of the weights tell a SAM's structure, down to its window sizes (the tables of relative
    positions); input size and normalisation come beside them.

    Args:
        backbone: With the encoder.
        computed_in: As in `CacheDescription`. What is held in half precision has the hash of the rounded weights,
            whether they are rounded here yet or not.
    """
    transform = backbone.transform
    told = (transform.size, tuple(map(float, transform.mean)), tuple(map(float, transform.std)), backbone.strides)
    digest = hashlib.sha256(repr((type(transform).__name__, told)).encode())
    rounded: dict[str, nn.Module] = {}
    if isinstance(backbone.encoder, ImageEncoder) and computed_in in PRECISIONS:
        rounded = backbone.encoder.product_layers()
    for name, tensor in sorted(backbone.encoder.state_dict().items()):
        held = tensor.to(PRECISIONS[computed_in]) if name.rpartition(".")[0] in rounded else tensor
        digest.update(f"{name} {held.dtype} {tuple(held.shape)}".encode())
        digest.update(held.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]
