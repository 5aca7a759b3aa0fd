"""What the script of a report reads."""

import json
import re
from pathlib import Path


def data_of(file: Path, name: str) -> dict:
    """Return the JSON of a script element."""
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', file.read_text("utf-8"))
    assert found is not None
    return json.loads(found[1])


def album_of(file: Path) -> dict:
    return data_of(file, "album")
