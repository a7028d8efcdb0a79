"""Metrics of masks and videos, protocols of the tasks, and the script that evaluates a model."""
