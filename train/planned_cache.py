"""The cache of a run that is only planned, whose encoder has no weights to be compared with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sam_uniref.cache import CacheDescription, FeatureCache, RecordLayout
from sam_uniref.cache.description import DESCRIPTION_FILE, level_shapes, read_description
from sam_uniref.cache.plan import gigabytes
from sam_uniref.cache.shard import SHARDS_FOLDER
from sam_uniref.interfaces import ImageBackbone


def planned_cache(folder: str, backbone: ImageBackbone) -> FeatureCache | None:
    """A run's cache, by its folder; None if it is not here yet.

    Args:
        folder: That the run names.
        backbone: Of the model, with whatever weights.

    Raises:
        ValueError: If it is of another input size or of other levels, or broken.
    """
    if not (Path(folder) / DESCRIPTION_FILE).is_file():
        return None
    described: CacheDescription = read_description(folder)
    wanted = replace(described, image_size=backbone.transform.size, shapes=level_shapes(backbone))
    described.check(wanted, Path(folder))
    return FeatureCache(Path(folder), described)


def cache_disk(folder: str, backbone: ImageBackbone) -> str:
    """What a run's cache takes on disk, or would take a picture, for people.

    Raises:
        ValueError: As `planned_cache`.
    """
    cache = planned_cache(folder, backbone)
    if cache is not None:
        taken = sum(path.stat().st_size for path in (Path(folder) / SHARDS_FOLDER).iterdir())
        return f"{folder}: {len(cache):,} views of pictures, {gigabytes(taken)}"
    sizes = {name: RecordLayout(level_shapes(backbone), name).size for name in ("bfloat16", "int8")}
    each = ", ".join(f"{size / 1e6:.3g} MB in {name}" for name, size in sizes.items())
    return f"{folder} is not here yet: a view of a picture takes {each}; sam-uniref cache --plan counts them"
