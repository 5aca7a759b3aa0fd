"""Files and folders: written whole or not at all, locked, never replaced unless Seglens made them.

Needs no torch.
"""
