"""Images and masks from whatever people hold: paths, PIL, numpy, torch. Bad ones are refused by name.

An image inside the library is HWC uint8 RGB, 0-255; a mask is HW bool.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from PIL import ExifTags, ImageOps
from PIL import Image as PILImage

from sam_uniref.nearest import nearest_path
from sam_uniref.palette import ids_of_colors

logger = logging.getLogger(__name__)

ImageLike: TypeAlias = "str | Path | PILImage.Image | NDArray[Any] | torch.Tensor"
MaskLike: TypeAlias = "str | Path | PILImage.Image | NDArray[Any] | torch.Tensor"
RGB: TypeAlias = NDArray[np.uint8]
Mask: TypeAlias = NDArray[np.bool_]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
# Files of these may hold several pictures in turn; a phone's second picture (MPO) is the same one for other eyes.
_MOVING = ("GIF", "PNG", "WEBP", "TIFF", "AVIF")
_SNIFFED_BYTES = 512
# Between the channels of a grey picture that was saved as a colour JPEG.
_GREY_NOISE = 32
# A mask that an annotation tool cut off by a column is mended; a mask of another picture is not.
MASK_SIZE_TOLERANCE = 2


def load_image(image: ImageLike) -> RGB:
    """Any image as HWC uint8 RGB.

    Args:
        image: A path, a PIL image (any mode; EXIF orientation is applied), a numpy array ``(H, W)``,
            ``(H, W, 1)``, ``(H, W, 3)`` RGB or ``(H, W, 4)`` RGBA, or a torch tensor ``(C, H, W)`` with 1, 3 or 4
            channels. uint8 is 0-255; floating point is 0-1. Of a moving picture the first frame, with a warning.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is broken or no image, it has more pixels than `pixel_limit` allows, or the array has
            another shape, range or a NaN.
        TypeError: If it is of none of these types.
    """
    if isinstance(image, str | Path):
        image = _open(image)
    if isinstance(image, PILImage.Image):
        image = ImageOps.exif_transpose(image)
        if not image.mode.startswith("I;16"):
            return np.asarray(image.convert("RGB"))
        image = np.asarray(image) / 65535  # Pillow would clip 16 bits to white
    if isinstance(image, torch.Tensor):
        if image.ndim != 3 or image.shape[0] not in (1, 3, 4):
            raise ValueError(f"a torch image must be (C, H, W) with 1, 3 or 4 channels, got {tuple(image.shape)}")
        image = (
            image.detach().cpu().permute(1, 2, 0).float().numpy()
            if image.is_floating_point()
            else (image.detach().cpu().permute(1, 2, 0).numpy())
        )
    if not isinstance(image, np.ndarray):
        raise TypeError(f"an image must be a path, PIL image, numpy array or torch tensor, got {type(image).__name__}")
    return _rgb(_uint8(image))


def _open(path: str | Path) -> PILImage.Image:
    """A whole decoded image file."""
    with _named_errors(path), PILImage.open(path) as image:
        if image.format in _MOVING and getattr(image, "is_animated", False):
            logger.warning("%s holds several pictures (%s); the first one is taken", path, image.format)
        image.load()
        return image


@contextmanager
def pixel_limit(pixels: int | None) -> Iterator[None]:
    """Refuse image files of more pixels meanwhile, before they are decoded: everywhere in the process.

    It is Pillow's own limit, ``PIL.Image.MAX_IMAGE_PIXELS``, twice which is an error: 178,956,970 by default.

    Args:
        pixels: The most; None leaves the limit as it is.

    Raises:
        ValueError: If it is less than 1.
    """
    if pixels is not None and pixels < 1:
        raise ValueError(f"the most pixels of a picture must be at least 1, got {pixels}")
    before = PILImage.MAX_IMAGE_PIXELS
    if pixels is not None:
        PILImage.MAX_IMAGE_PIXELS = -(-pixels // 2)
    try:
        with warnings.catch_warnings():
            # Pillow warns from half the limit on.
            warnings.simplefilter("ignore", PILImage.DecompressionBombWarning)
            yield
    finally:
        PILImage.MAX_IMAGE_PIXELS = before


@contextmanager
def _named_errors(path: str | Path) -> Iterator[None]:
    """Pillow's errors with the file's name in them; a broken file raises a dozen types."""
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no image at {path}{nearest_path(path)}") from None
    except PILImage.DecompressionBombError as error:
        size = re.search(r"\((\d+) pixels\).*?limit of (\d+)", str(error))
        found = f"{int(size[1]):,} pixels, the limit is {int(size[2]):,}" if size else str(error)
        raise ValueError(
            f"{path} is too large: {found}; make it smaller, or raise the limit: --max-pixels on the command line, "
            "sam_uniref.images.pixel_limit in Python"
        ) from error
    except IsADirectoryError as error:
        raise ValueError(f"{path} is a folder, not an image") from error
    except PermissionError:
        raise
    except PIL.UnidentifiedImageError as error:
        raise ValueError(f"{path} is not a whole image ({_what_it_is(path)}); replace or remove it") from error
    except Exception as error:
        raise ValueError(f"{path} is not a whole image ({error}); replace or remove it") from error


def _what_it_is(path: str | Path) -> str:
    """A guess at a file that is no image."""
    with Path(path).open("rb") as file:
        begin = file.read(_SNIFFED_BYTES)
    if not begin:
        return "it is empty"
    is_text = not any((byte < 32 and byte not in b"\t\n\r\f") or byte == 127 for byte in begin)
    return "it holds text" if is_text else "it is broken, or of no format that can be read"


def image_size(path: str | Path) -> tuple[int, int]:
    """``(height, width)`` that `load_image` will give a file, from its header alone.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no image.
    """
    with _named_errors(path), PILImage.open(path) as image:
        width, height = image.size
        turned = image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
    return (width, height) if turned else (height, width)


def check_still(path: str | Path) -> None:
    """Refuse a file that is no picture, by its header, or a GIF of several, of which nobody could say which is meant.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no image, or a moving GIF.
    """
    with _named_errors(path), PILImage.open(path) as image:
        frames = getattr(image, "n_frames", 1) if image.format == "GIF" else 1
    if frames > 1:
        raise ValueError(
            f"{path} is a GIF of {frames} pictures: follow the object through them with sam-uniref track, or save the "
            "one that is meant as a PNG"
        )


def _uint8(array: NDArray[Any]) -> NDArray[np.uint8]:
    """An array in 0-255, from uint8 or from floats in 0-1."""
    if array.dtype == np.uint8:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"an image array must be uint8 (0-255) or floating point (0-1), got {array.dtype}")
    if not np.isfinite(array).all():
        raise ValueError("an image array must be finite, got NaN or infinity")
    if array.size and (array.min() < 0 or array.max() > 1):
        raise ValueError(
            f"a floating-point image must be in 0-1, got {array.min():.3g} to {array.max():.3g}; "
            "divide by 255 or convert to uint8"
        )
    return np.round(array * 255).astype(np.uint8)


def _rgb(array: NDArray[np.uint8]) -> RGB:
    """HWC RGB from grey, RGB or RGBA."""
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise ValueError(f"an image array must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {array.shape}")
    if array.shape[2] == 1:
        array = np.repeat(array, 3, axis=2)
    return np.ascontiguousarray(array[:, :, :3])


def load_id_map(mask: MaskLike) -> NDArray[np.int64]:
    """A mask as a map ``(H, W)`` of object ids, 0 = background, 255 = void in palette images.

    A palette PNG's pixel values are its ids, and so are those of a grey one with nothing above 127. A colour picture
    in the colours that video sets show ids in (PASCAL VOC's) has these ids; one in a single other colour, other grey
    pictures, booleans and floats in 0-1 (or one channel of 0 and 255) are binary and have the one id 1; an integer
    array is a map of ids already.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is broken, a picture has several colours that are no ids', or the array has another
            shape, a NaN or a negative id.
        TypeError: If it is of no known type.
    """
    if isinstance(mask, str | Path):
        mask = _open(mask)
    if isinstance(mask, PILImage.Image):
        return _ids_of_picture(mask)
    if isinstance(mask, torch.Tensor):
        mask = mask.detach().cpu().numpy() if mask.dtype != torch.bfloat16 else mask.detach().cpu().float().numpy()
    if not isinstance(mask, np.ndarray):
        raise TypeError(f"a mask must be a path, PIL image, numpy array or torch tensor, got {type(mask).__name__}")
    if mask.ndim == 3 and 1 in (mask.shape[0], mask.shape[-1]):
        mask = mask[0] if mask.shape[0] == 1 else mask[..., 0]
    if mask.ndim != 2 or 0 in mask.shape:
        raise ValueError(f"a mask must be (H, W), got {mask.shape}")
    if np.issubdtype(mask.dtype, np.floating):
        if not np.isfinite(mask).all():
            raise ValueError("a mask must be finite, got NaN or infinity")
        return (mask > 0.5 * max(1.0, float(mask.max()))).astype(np.int64)
    if mask.dtype == np.uint8 and set(np.unique(mask).tolist()) <= {0, 255}:
        return (mask > 0).astype(np.int64)
    if mask.dtype != np.bool_ and mask.min() < 0:
        raise ValueError(f"object ids must not be negative, got {mask.min()}")
    return mask.astype(np.int64)


def _ids_of_picture(mask: PILImage.Image) -> NDArray[np.int64]:
    """The map of ids in a mask picture: palette indices or colours, or one id for a grey one."""
    if mask.mode == "P":
        return _without_void(np.asarray(mask).astype(np.int64))
    if mask.mode in ("RGB", "RGBA"):
        colors = np.asarray(mask.convert("RGB"))
        if np.ptp(colors.astype(np.int64), axis=2).max() > _GREY_NOISE:
            return _ids_in_colors(colors)
    grey = np.asarray(mask.convert("L")).astype(np.int64)
    # Nothing brighter than half: somebody stored ids in grey, not black and white.
    return grey if grey.max() <= 127 else (grey > 127).astype(np.int64)


def _ids_in_colors(colors: RGB) -> NDArray[np.int64]:
    """The ids that a coloured mask shows: the palette's, or one for whatever is not black."""
    try:
        return _without_void(ids_of_colors(colors).astype(np.int64))
    except ValueError as error:
        drawn: Mask = colors.max(axis=2) > 0
        if (colors[drawn] == colors[drawn][0]).all():
            return np.asarray(drawn, np.int64)
        raise ValueError(
            f"the mask has several colours, and {error}; save the ids themselves, as a palette PNG"
        ) from None


def _without_void(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """255 is DAVIS's void beside other ids; alone it is somebody's white."""
    return (ids > 0).astype(np.int64) if set(np.unique(ids).tolist()) <= {0, 255} else np.where(ids == 255, 0, ids)


def load_mask(mask: MaskLike, size: tuple[int, int], *, object_id: int | None = None, name: str | None = None) -> Mask:
    """One object's mask at its image's size.

    Args:
        mask: Anything `load_id_map` takes.
        size: ``(height, width)`` of the image.
        object_id: Which id of the map. By default the mask must have one.
        name: What to call the mask in messages; its path by default.

    Returns:
        ``(height, width)`` bool.

    Raises:
        ValueError: If it is empty, has several objects and none is named, or is of quite another size.
    """
    name = name or (str(mask) if isinstance(mask, str | Path) else "the mask")
    ids = fit_to_image(load_id_map(mask), size, name)
    found = [int(i) for i in np.unique(ids) if i != 0]
    if not found:
        raise ValueError(f"{name} is empty: a reference mask must mark at least one pixel")
    if object_id is None:
        if len(found) > 1:
            raise ValueError(f"{name} has the objects {found}; say which one with object_id=")
        return ids == found[0]
    if object_id not in found:
        raise ValueError(f"{name} has no object {object_id}, it has {found}")
    return ids == object_id


def fit_to_image(ids: NDArray[Any], size: tuple[int, int], name: str = "the mask") -> NDArray[Any]:
    """A map of ids at its image's size: resized by nearest if it is off by at most 2 pixels, with a warning.

    Raises:
        ValueError: If it is off by more.
    """
    got = ids.shape[:2]
    if got == tuple(size):
        return ids
    if max(abs(got[0] - size[0]), abs(got[1] - size[1])) > MASK_SIZE_TOLERANCE:
        raise ValueError(
            f"{name} is {got[1]}x{got[0]} but its image is {size[1]}x{size[0]} (width x height); "
            f"a mask may be off by {MASK_SIZE_TOLERANCE} pixels at most, resize it by nearest neighbour"
        )
    logger.warning("%s is %dx%d, its image %dx%d: resized by nearest neighbour", name, *got[::-1], *size[::-1])
    rows = np.minimum((np.arange(size[0]) + 0.5) * got[0] / size[0], got[0] - 1).astype(int)
    columns = np.minimum((np.arange(size[1]) + 0.5) * got[1] / size[1], got[1] - 1).astype(int)
    return ids[rows[:, None], columns[None, :]]
