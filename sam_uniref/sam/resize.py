"""SAM at another image size than its own: its learned tables of positions, interpolated once.

Nothing else in SAM depends on the size: the rest is convolution, attention and a Fourier encoding of positions in
[0, 1], and attention inside windows has tables of the windows' own size.
"""

from __future__ import annotations

from segment_anything.modeling import Sam
from torch import Tensor, nn
from torch.nn import functional as F


def check_image_size(sam: Sam, image_size: int | None) -> None:
    """Refuse an image size that a SAM can't have; None, its own, is always one.

    Raises:
        ValueError: If it is not a positive multiple of the patch size.
    """
    if image_size is None:
        return
    own, patch = sam.image_encoder.img_size, _patch_size(sam)
    if not isinstance(image_size, int) or image_size < 1 or image_size % patch:
        raise ValueError(
            f"image_size must be a positive multiple of this SAM's patch size, {patch}, such as {own // 2}, "
            f"{own * 3 // 4} or its own {own}, got {image_size!r}"
        )


def interpolate_positions(table: Tensor, grid: int) -> Tensor:
    """Absolute positions for another grid: bicubic with antialiasing, as timm resamples those of its SAM.

    Args:
        table: ``(1, g, g, C)`` float32.
        grid: Side of the new grid, in patches.

    Returns:
        ``(1, grid, grid, C)`` float32; the table itself where ``grid`` is ``g``.
    """
    if table.shape[1] == grid:
        return table
    resized = F.interpolate(table.permute(0, 3, 1, 2), (grid, grid), mode="bicubic", antialias=True)
    return resized.permute(0, 2, 3, 1).contiguous()


def interpolate_relative_positions(table: Tensor, grid: int) -> Tensor:
    """Positions relative to one another, for another grid: linear, as segment-anything's ``get_rel_pos``.

    That function would do it again in every call of every block.

    Args:
        table: ``(2 g - 1, C)`` float32, from the farthest to the left (above) to the farthest to the right (below).
        grid: Side of the new grid, in patches.

    Returns:
        ``(2 grid - 1, C)`` float32; the table itself where ``grid`` is ``g``.
    """
    length = 2 * grid - 1
    if len(table) == length:
        return table
    return F.interpolate(table.t()[None], length, mode="linear")[0].t().contiguous()


def resize_sam(sam: Sam, image_size: int) -> dict[str, Tensor]:
    """Make a SAM take images of another size, in place.

    Args:
        sam: With its weights loaded.
        image_size: Side of the input square in pixels, a positive multiple of the patch size.

    Returns:
        The tables as they were, by their names in SAM's state dict; none where the size is SAM's own.

    Raises:
        ValueError: If the size is not such a multiple.
    """
    check_image_size(sam, image_size)
    encoder = sam.image_encoder
    if image_size == encoder.img_size:
        return {}
    grid = image_size // _patch_size(sam)
    interpolations = {"pos_embed": interpolate_positions}
    for index, block in enumerate(encoder.blocks):
        if block.window_size == 0:
            interpolations |= {f"blocks.{index}.attn.rel_pos_{axis}": interpolate_relative_positions for axis in "hw"}
    tables = {name: encoder.get_parameter(name) for name in interpolations}
    for name, table in tables.items():
        owner, _, attribute = name.rpartition(".")
        resized = nn.Parameter(interpolations[name](table.detach(), grid), table.requires_grad)
        setattr(encoder.get_submodule(owner), attribute, resized)
    encoder.img_size = image_size
    prompts = sam.prompt_encoder
    prompts.input_image_size = (image_size, image_size)
    prompts.image_embedding_size = (grid, grid)
    prompts.mask_input_size = (4 * grid, 4 * grid)
    return {f"image_encoder.{name}": table.detach() for name, table in tables.items()}


def _patch_size(sam: Sam) -> int:
    """Side of a patch in pixels."""
    return int(sam.image_encoder.patch_embed.proj.kernel_size[0])
