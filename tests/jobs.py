"""What jobs of several processes start with, and what they leave behind."""

import os
from pathlib import Path

ALONE_ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("SLURM_", "MASTER_", "TORCHELASTIC_", "SEGLENS_"))
    and name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK")
}
"""What a process starts with on whose behalf nobody has started others."""


def files_below(folder: Path) -> set[str]:
    """Every file and folder below ``folder``, by its path from there."""
    return {str(file.relative_to(folder)) for file in folder.rglob("*")}
