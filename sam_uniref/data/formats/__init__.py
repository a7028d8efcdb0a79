"""Readers of official downloads, by the names of the data sets."""

from sam_uniref.data.formats.base import DataFormat
from sam_uniref.data.formats.registry import FORMATS, named_format

__all__ = ["FORMATS", "DataFormat", "named_format"]
