"""Data: samples, reading pictures, the layouts of sets, splits, checks, and embedded specimens."""
