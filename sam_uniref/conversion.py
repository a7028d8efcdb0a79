"""Published checkpoints into folders of ours and back, whatever kind of model they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sam_uniref.models import kind_of
from sam_uniref.output_checks import check_output_file
from sam_uniref.state import read_tensors, whole_file

if TYPE_CHECKING:
    from torch import Tensor


def convert_checkpoint(
    checkpoint: str | Path,
    folder: str | Path,
    *,
    text_encoder: str | Path = "bert-base-uncased",
    sam_checkpoint: str | Path | None = None,
) -> tuple[str, tuple[str, ...]]:
    """A published checkpoint as a folder that ``from_pretrained`` reads.

    Args:
        checkpoint: Of UniRef++ (R50 or Swin-L, of any stage) or of its SAM variant; which, its names tell.
        folder: To write.
        text_encoder: Hub id or folder for the tokenizer and configuration; its weights are the checkpoint's.
        sam_checkpoint: For the SAM variant, the original SAM's file: for prompts without a reference.

    Returns:
        The kind of model, as `sam_uniref.models` calls it, and which parts the checkpoint does not have.

    Raises:
        FileNotFoundError: If a file or the text encoder is not there.
        FileExistsError: If the folder holds something else than a saved model.
        ValueError: If the checkpoint is neither, holds other objects than tensors, or has tensors that are missing,
            unknown or misshapen; or there is a SAM for a model that has none.
    """
    state_dict = read_tensors(checkpoint)
    from sam_uniref.detr import official as uniref
    from sam_uniref.official import is_official, model_from_official

    if uniref.is_published(state_dict):
        if sam_checkpoint is not None:
            raise ValueError(f"{checkpoint} is a UniRef++ without a SAM; leave out the SAM's checkpoint")
        weights = uniref.convert_published(state_dict)
        uniref.save_converted(uniref.model_from_published(weights, text_encoder), weights, folder)
        return "uniref", weights.fresh
    if is_official(state_dict):
        model = model_from_official(state_dict, sam_checkpoint=sam_checkpoint, text_encoder=text_encoder)
        model.save_pretrained(folder)
        return "samref", ()
    raise ValueError(
        f"{checkpoint} is neither a UniRef++ nor its SAM variant, as FoundationVision/UniRef publishes them; its "
        f"tensors are called {', '.join(sorted(state_dict)[:3])}, ..."
    )


def convert_back(folder: str | Path, checkpoint: str | Path) -> str:
    """A saved model as a checkpoint that the published code reads.

    Args:
        folder: That ``save_pretrained`` or `convert_checkpoint` wrote.
        checkpoint: To write, with ``torch.save``; state dict under ``"model"``.

    Returns:
        The kind of model, as `sam_uniref.models` calls it.

    Raises:
        FileNotFoundError: If the folder holds no model.
        ValueError: If the published code has no such model, or the file can't be written.
    """
    import torch

    checkpoint = Path(checkpoint)
    check_output_file(checkpoint)
    kind = kind_of(folder)
    published = _published(kind, Path(folder))
    with whole_file(checkpoint) as temporary:
        torch.save({"model": published}, temporary)
    return kind


def _published(kind: str, folder: Path) -> dict[str, Tensor]:
    """A saved model's published names and tensors."""
    if kind == "uniref":
        from sam_uniref.detr import UniRef
        from sam_uniref.detr.official import read_kept, restore_published

        uniref = UniRef.from_pretrained(folder)
        kept, parts = read_kept(folder)
        return restore_published(uniref.state_dict(), uniref.config, parts=parts, kept=kept)
    if kind == "samref":
        from sam_uniref.official import restore_official
        from sam_uniref.samref import SamRef

        samref = SamRef.from_pretrained(folder)
        return restore_official(samref.state_dict(), samref.config)
    raise ValueError(f"{folder} holds a {kind}; only UniRef and SamRef have a published form")
