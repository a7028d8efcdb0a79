"""Metrics, protocols and baselines (the next releases bring them)."""
