"""``train/finetune.py`` with FSDP2 and processes on the CPU, which PyTorch can do and Accelerate does not offer."""

from __future__ import annotations

import sys

from accelerate import Accelerator
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

from sam_uniref.train import finetune
from sam_uniref.train.settings import RunSettings

made = finetune.make_accelerator


def sharding_accelerator(settings: RunSettings) -> Accelerator:
    """As a configuration with ``distributed_type: FSDP`` makes it."""
    accelerator = made(settings)
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap", cpu_ram_efficient_loading=False
    )
    accelerator.state.distributed_type = DistributedType.FSDP
    assert accelerator.is_fsdp2
    return accelerator


if __name__ == "__main__":
    finetune.make_accelerator = sharding_accelerator
    sys.exit(finetune.main())
