"""Settings and fixtures of the whole test run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

# Small matrices gain nothing from a second thread, and lose much where the cores are shared; and sums are
# taken in one order, so that "bit for bit" can be asked for.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The shared folder of real clips and photographs: ``SAM_UNIREF_SHARED``, or ``../shared``."""
    folder = Path(os.environ.get("SAM_UNIREF_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "data" / "clips").is_dir():
        pytest.skip(f"no shared data at {folder}; set SAM_UNIREF_SHARED")
    return folder
