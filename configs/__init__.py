"""YAML configurations, one file a run."""
