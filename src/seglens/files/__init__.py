"""Files and folders on the disk: written whole or not at all, locked, never replaced unless Seglens made them.

Needs no torch.
"""
