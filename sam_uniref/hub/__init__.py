"""Weights from elsewhere: models by their hub id, base checkpoints and text encoders by name and SHA-256, model cards.

`huggingface_hub` is imported where it is used.
"""
