"""Cells as tables: data sets, harmonised classes, the cell table, splits, images and phantoms."""
