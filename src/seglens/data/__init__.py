"""Data: pictures and masks on disk, in any of the known layouts, to samples."""
