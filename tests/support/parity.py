"""Recorded outputs of the published code, and the comparison with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from fill import blob_mask, fill_state_dict, load_shapes, tensor

FOLDER = Path(__file__).parent.parent / "fixtures" / "sam"
TOLERANCE = 1e-4


def recorded(case: str, folder: Path = FOLDER) -> dict[str, np.ndarray]:
    """All arrays recorded for a case."""
    with np.load(folder / f"{case}.npz") as file:
        return {name: file[name] for name in file.files}


def weights(case: str, folder: Path = FOLDER) -> dict[str, torch.Tensor]:
    """The published state dict of a case, rebuilt from its names."""
    return fill_state_dict(load_shapes(folder / f"{case}.params.json"))


def padding(lengths: list[int], longest: int) -> torch.Tensor:
    """``(N, longest)`` bool, True after each row's length."""
    return torch.arange(longest)[None] >= torch.tensor(lengths)[:, None]


def assert_matches(got: torch.Tensor, expected: dict[str, np.ndarray], name: str, part: tuple = ()) -> None:
    """Compare a slice with the recorded array, and the whole tensor with its recorded statistics."""
    got = got.detach()
    values = got[part] if part else got
    np.testing.assert_allclose(values.numpy(), expected[name], rtol=TOLERANCE, atol=TOLERANCE, err_msg=name)
    if f"{name}.stats" in expected:
        stats = [got.mean().item(), got.std(unbiased=False).item(), got.abs().max().item()]
        np.testing.assert_allclose(stats, expected[f"{name}.stats"], rtol=TOLERANCE, atol=TOLERANCE, err_msg=name)


__all__ = ["assert_matches", "blob_mask", "padding", "recorded", "tensor", "weights"]
