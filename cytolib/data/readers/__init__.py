"""Readers: a published layout in, a table of cells without labels of a label set and without splits out."""

from cytolib.data.readers.common import Entry, Reading, read_entries
from cytolib.data.readers.folders import read_image_folder

__all__ = ["Entry", "Reading", "read_entries", "read_image_folder"]
