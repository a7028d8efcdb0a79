"""Training: configuration, batches, optimiser, checkpoints, validation. `finetune.py` is the script."""
