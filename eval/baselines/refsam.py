"""RefSAM as a compared method: the model is one as it is, and answers what a sentence names.

It is trained by the trainer, with ``model.kind: refsam``; see `sam_uniref.refsam` for what it is made of and what of it
is our choice.
"""

from __future__ import annotations

from pathlib import Path

import torch

from sam_uniref.loading import load_class_for_use
from sam_uniref.refsam import RefSam


def load_refsam(
    folder: str | Path, checkpoint: str | Path | None, device: torch.device, image_size: int | None = None
) -> RefSam:
    """A trained RefSAM on a device, in evaluation mode.

    Args:
        folder: That training, or `RefSam.save_pretrained`, wrote.
        checkpoint: The base SAM's file, if it is not found by its name.
        device: Where it runs.
        image_size: Side of the input square in pixels; by default that of the saved model.

    Raises:
        FileNotFoundError: If the folder or the base checkpoint is not there.
        ValueError: If the folder holds another kind of model, a file is broken or does not fit, or the image size is no
            multiple of the patch size.
    """
    return load_class_for_use(RefSam, folder, checkpoint, device, image_size)
