"""Weakly supervised segmentation: from image-level labels to masks, without reading one."""
