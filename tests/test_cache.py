"""The embedding cache's parts: records, keys, descriptions, shards, writers."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from cached import MadePicture, QuickBackbone, flip_bit, images, made, shards, written
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import picture

from sam_uniref.cache import (
    PRECISIONS,
    BrokenShardError,
    CacheDescription,
    CacheWriter,
    FeatureCache,
    NotCachedError,
    RecordLayout,
    broken_shards,
    open_cache,
)
from sam_uniref.cache.description import read_description
from sam_uniref.cache.features import picture_key
from sam_uniref.cache.shard import Shard
from sam_uniref.config import SamRefConfig
from sam_uniref.samref import SamRef

# ---- Records ----


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    exponent=st.integers(-30, 20),
    precision=st.sampled_from(PRECISIONS),
    sizes=st.lists(st.tuples(*[st.integers(1, 5)] * 3), min_size=1, max_size=3),
    silent=st.booleans(),
)
def test_round_trip(seed: int, exponent: int, precision: str, sizes: list[tuple[int, int, int]], silent: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    levels = [torch.randn(size, generator=generator) * 2.0**exponent for size in sizes]
    if silent:
        levels[0][0] = 0
    layout = RecordLayout(tuple(sizes), precision)
    record = layout.pack(levels)
    assert record.shape == (layout.size,)
    assert record.dtype == torch.uint8
    for level, back in zip(levels, layout.unpack(record), strict=True):
        assert back.dtype == (torch.float32 if precision == "float32" else torch.bfloat16)
        apart = (back.float() - level).abs()
        if precision == "float32":
            assert torch.equal(back, level)
        elif precision == "bfloat16":
            assert bool((apart <= level.abs() * 2.0**-8).all())
        else:
            step = level.abs().amax((1, 2), keepdim=True) / 127
            assert bool((apart <= step * 0.501 + level.abs() * 2.0**-7).all())


def test_sizes_of_sam() -> None:
    """ViT-B, L and H have one level of 256 channels; a record is 2 MiB, or a little more than 1 in int8."""
    shapes = ((256, 64, 64),)
    assert RecordLayout(shapes, "bfloat16").size == 2 * 2**20
    assert RecordLayout(shapes, "int8").size == 2**20 + 1024
    assert RecordLayout(shapes, "float32").size == 4 * 2**20


@pytest.mark.parametrize("precision", PRECISIONS)
def test_bad_records(precision: str) -> None:
    layout = RecordLayout(((2, 3, 3),), precision)
    with pytest.raises(ValueError, match=r"shapes \(\(2, 3, 3\),\), got \(\(2, 3, 4\),\)"):
        layout.pack([torch.zeros(2, 3, 4)])
    for value in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match="not finite"):
            layout.pack([torch.full((2, 3, 3), value)])
    with pytest.raises(ValueError, match=r"precision must be one of .*, got 'int4'"):
        RecordLayout(((2, 3, 3),), "int4")


def test_records_are_not_copied() -> None:
    layout = RecordLayout(((2, 3, 3), (1, 2, 2)), "bfloat16")
    record = layout.pack([torch.ones(2, 3, 3), torch.ones(1, 2, 2)])
    memory = range(record.data_ptr(), record.data_ptr() + len(record))
    assert all(level.data_ptr() in memory for level in layout.unpack(record))


# ---- Keys and descriptions ----


def test_a_key_is_of_what_is_on_a_picture() -> None:
    image = picture(20, 30)
    assert picture_key(image) == picture_key(np.asfortranarray(image))
    other = image.copy()
    other[19, 29, 2] ^= 1
    variants = [image, other, image[:, ::-1], image[1:], image.reshape(30, 20, 3)]
    assert len({picture_key(variant) for variant in variants}) == len(variants)


def test_a_description_is_of_encoder_and_input() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        host = SamRef.from_sam("tiny").frozen_backbone()
        described = CacheDescription.of(host, "bfloat16")
        smaller = CacheDescription.of(SamRef.from_sam("tiny", image_size=64).frozen_backbone(), "bfloat16")
    assert described.shapes == ((128, 16, 16),)
    assert host.encode(torch.zeros(1, 3, 128, 128))[0][0].shape[1:] == described.shapes[0]
    with torch.no_grad():
        next(iter(host.encoder.parameters())).view(-1)[7] += 1e-6
    changed = CacheDescription.of(host, "bfloat16")
    assert len({described.encoder, changed.encoder, smaller.encoder}) == 3
    assert smaller.image_size == 64
    again = QuickBackbone()
    before = CacheDescription.of(again, "int8")
    assert before == CacheDescription.of(QuickBackbone(), "int8")
    again.transform = type(again.transform)(16, (0.0, 0.0, 0.0), again.transform.std)
    assert CacheDescription.of(again, "int8").encoder != before.encoder
    assert len({d.digest for d in (before, CacheDescription.of(QuickBackbone(), "float32"))}) == 2


def test_decoders_are_no_part_of_the_encoder() -> None:
    model = SamRef.from_pretrained("tiny")
    before = CacheDescription.of(model.frozen_backbone(), "int8")
    with torch.no_grad():
        for module in (model.mask_decoder, model.sam.mask_decoder):
            next(iter(module.parameters())).add_(1)
    assert CacheDescription.of(model.frozen_backbone(), "int8") == before


@pytest.mark.parametrize(
    ("backbone", "precision", "message"),
    [
        (QuickBackbone(seed=1), "float32", "encoder .* instead of"),
        (QuickBackbone(size=32), "float32", "image_size 16 instead of 32; shapes"),
        (QuickBackbone(), "int8", "precision float32 instead of int8"),
    ],
)
def test_a_folder_is_one_cache(tmp_path: Path, backbone: QuickBackbone, precision: str, message: str) -> None:
    written(tmp_path)
    with pytest.raises(ValueError, match=f"is a cache of something else: .*{message}"):
        CacheWriter(tmp_path, backbone, CacheDescription.of(backbone, precision))
    if precision == "float32":
        with pytest.raises(ValueError, match=f"is a cache of something else: .*{message}"):
            open_cache(tmp_path, backbone)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "can't be read"),
        ("[]", "can't be read"),
        ('{"version": 99}', "it has version 99, this library reads 1"),
        ('{"version": 1, "shapes": [[1, 2, 3]]}', "can't be read"),
    ],
)
def test_what_is_no_cache(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"is no cache of features.*sam-uniref cache"):
        read_description(tmp_path)
    (tmp_path / "cache.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_description(tmp_path)


# ---- Reading ----


def test_features_are_the_encoder_s(tmp_path: Path) -> None:
    description = written(tmp_path, 5)
    cache = FeatureCache(tmp_path, description)
    assert len(cache) == 10
    backbone = QuickBackbone()
    pixels, _ = backbone.transform.batch(images(5))
    (expected,), _ = backbone.encode(pixels)
    (found,) = cache.levels(images(5), ["some"] * 10)
    assert torch.equal(found, expected.detach())


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, written(tmp_path, 2))
    with pytest.raises(NotCachedError, match=r"no features of a picture of ris: 9\.jpg \(16x12.*sam-uniref cache"):
        cache.levels([images(1)[0], MadePicture(9).views()[0]], ["ris: 0.jpg", "ris: 9.jpg"])


def test_loader_processes_map_files_of_their_own(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, written(tmp_path, 2))
    before = cache.levels(images(2), ["a"] * 4)
    sent = pickle.dumps(cache)
    assert len(sent) < 8 * 2**10  # no features among it
    again = pickle.loads(sent).levels(images(2), ["a"] * 4)  # noqa: S301
    assert torch.equal(again[0], before[0])
    open_files = [file.path for file in psutil.Process().open_files()]
    assert not [name for name in open_files if name.endswith(".features")]


@settings(max_examples=60, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True))
def test_a_changed_bit_gives_the_same_or_an_error(tmp_path_factory: pytest.TempPathFactory, place: float) -> None:
    folder = tmp_path_factory.mktemp("cache")
    description = written(folder, 2)
    (path,) = shards(folder)
    before = Shard(path, description.digest)
    contents = [before.record(row).clone() for row in range(len(before))]
    flip_bit(path, int(place * path.stat().st_size))
    caught: BrokenShardError | None = None
    try:
        after = Shard(path, description.digest)
        same = [torch.equal(after.record(row), content) for row, content in enumerate(contents)]
    except BrokenShardError as error:
        caught = error
    if caught is None:
        assert all(same)  # between header and records nothing is read
    else:
        assert str(path) in str(caught)
        assert "sam-uniref cache" in str(caught)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "it is .* bytes long, and should be"),
        (lambda path: path.write_bytes(path.read_bytes() + b"0"), "it is .* bytes long, and should be"),
        (lambda path: path.write_bytes(path.read_bytes()[:100]), "its header is not as it was written"),
        (lambda path: path.write_bytes(b""), "it has no header"),
        (lambda path: path.write_bytes(b"x" * 5000), "it does not begin as a shard does"),
        (lambda path: flip_bit(path, 60), "its header is not as it was written"),
        (lambda path: flip_bit(path, path.stat().st_size - 1), "features of made/1.jpg does not match"),
    ],
)
def test_a_broken_shard_is_named_and_made_again(tmp_path: Path, harm, message: str) -> None:
    description = written(tmp_path, 6)
    before = {path: path.read_bytes() for path in shards(tmp_path)}
    path = next(path for path in before if Shard(path, description.digest).names[-1] == "made/1.jpg")
    harm(path)
    (broken,) = broken_shards(tmp_path, description)
    assert broken.path == path
    with pytest.raises(BrokenShardError, match=message) as error:
        FeatureCache(tmp_path, description).levels(images(6), [""] * 12)
    assert str(error.value) == str(pickle.loads(pickle.dumps(error.value)))  # noqa: S301
    path.unlink()
    backbone = QuickBackbone()
    assert CacheWriter(tmp_path, backbone, description).write(made(6), 4) == 4
    assert backbone.seen == 4
    assert {path: path.read_bytes() for path in shards(tmp_path)} == before


def test_a_file_that_shrinks_while_it_is_used_is_an_error(tmp_path: Path) -> None:
    description = written(tmp_path, 2)
    cache = FeatureCache(tmp_path, description)
    (path,) = shards(tmp_path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(BrokenShardError, match="it was cut off"):
        cache.levels(images(1), ["a", "b"])


def test_a_shard_of_another_cache_is_found(tmp_path: Path) -> None:
    written(tmp_path / "one", 2)
    description = written(tmp_path / "two", 2, "bfloat16")
    (path,), (other,) = shards(tmp_path / "two"), shards(tmp_path / "one")
    other.replace(path)
    with pytest.raises(BrokenShardError, match="belongs to another cache"):
        FeatureCache(tmp_path / "two", description)


def test_lora_and_training_leave_nothing_to_cache() -> None:
    config = SamRefConfig.for_size("tiny")
    config.lora.image_targets = ["qkv"]
    with pytest.raises(ValueError, match="LoRA changes the image encoder with every step"):
        SamRef.from_sam("tiny", config=config).frozen_backbone()
    model = SamRef.from_sam("tiny")
    model.sam.image_encoder.neck.requires_grad_(True)
    with pytest.raises(ValueError, match="the image encoder is trained"):
        model.frozen_backbone()
