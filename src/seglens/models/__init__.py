"""Networks, the one wrapper that everything else sees (``Segmenter``), their weights and their layers."""
