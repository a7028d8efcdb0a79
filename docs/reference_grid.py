r"""Draw every query with every reference: a model that follows its reference marks the diagonal only.

    python docs/reference_grid.py runs/folder/model docs/personalize.jpg \
        --root personalize --support cat/00 duck_toy/00 colorful_sneaker/00 \
        --query cat/02 duck_toy/01 colorful_sneaker/02

Each name is a picture ``<root>/<name>.jpg`` with its mask ``<root>/<name>.png``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from sam_uniref import MaskReference, SamRef
from sam_uniref.images import RGB, load_image, load_mask
from sam_uniref.segmentation import overlay_mask

SIDE, GAP = 160, 4
GREEN, RED = (0, 160, 80), (255, 64, 32)


def tile(picture: RGB) -> RGB:
    """A picture as a square of `SIDE` pixels with a white margin."""
    small = np.asarray(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.LANCZOS))
    return np.pad(small, ((GAP, GAP), (GAP, GAP), (0, 0)), constant_values=255)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--support", nargs="+", required=True)
    parser.add_argument("--query", nargs="+", required=True)
    arguments = parser.parse_args()
    model = SamRef.from_pretrained(arguments.model)
    queries = [load_image(arguments.root / f"{name}.jpg") for name in arguments.query]
    encoded = [model.encode_image(query) for query in queries]
    rows = [np.concatenate([np.full_like(tile(queries[0]), 255), *map(tile, queries)], axis=1)]
    for name in arguments.support:
        image, mask = arguments.root / f"{name}.jpg", arguments.root / f"{name}.png"
        reference = model.encode_reference(examples=[MaskReference(image, mask)])
        picture = load_image(image)
        tiles = [tile(overlay_mask(picture, load_mask(mask, picture.shape[:2]), GREEN))]
        for query, features in zip(queries, encoded, strict=True):
            tiles.append(tile(model.segment(features, reference=reference).overlay(query, RED)))
        rows.append(np.concatenate(tiles, axis=1))
    Image.fromarray(np.concatenate(rows)).save(arguments.out, quality=88)


if __name__ == "__main__":
    main()
