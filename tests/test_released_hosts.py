"""Released weights of hosts by name: where they are looked for, without a net."""

from __future__ import annotations

from pathlib import Path

import pytest

from sam_uniref import SamRef
from sam_uniref.config import BaseSamConfig
from sam_uniref.hosts import HOST_NAMES
from sam_uniref.hosts.registry import published_weights, repository_of
from sam_uniref.hub.known import find_known


@pytest.fixture(autouse=True)
def nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SAM_UNIREF_WEIGHTS", "SAM_UNIREF_CHECKPOINTS", "HF_HUB_CACHE"):
        monkeypatch.setenv(name, str(tmp_path))


@pytest.mark.parametrize("name", [name for name in HOST_NAMES if name != "tiny"])
def test_every_host_has_released_weights(name: str) -> None:
    base = BaseSamConfig(size=name)
    assert (repository_of(base) is None) == (find_known(name) is not None)
    with pytest.raises(FileNotFoundError, match="not on this machine"):
        published_weights(base, local_files_only=True)


def test_the_tiny_one_has_none() -> None:
    assert published_weights(BaseSamConfig(size="tiny"), local_files_only=True) is None


def test_a_model_of_the_callers_own_is_not_looked_for() -> None:
    assert repository_of(BaseSamConfig(size="edgetam", architecture={"model_type": "edgetam"})) is None


def test_without_them_a_host_is_not_built() -> None:
    with pytest.raises(FileNotFoundError, match=r"mobile_sam\.pt"):
        SamRef.from_sam("mobile_sam", local_files_only=True)
