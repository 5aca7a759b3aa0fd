"""What the intervals of a result resample: pictures, or groups of pictures that belong together."""

from typing import Literal

from seglens.results.tables import Result

GroupedBy = Literal["", "table", "names", "volumes", "near-duplicates"]
"""Where groups come from: a table, file names, the volumes that slices were cut from, or looking at pictures.

Empty where nobody said and nobody looked: each picture then stands alone.
"""

WORDS = {
    "table": "the groups of",
    "names": "the groups that file names tell by",
    "volumes": "the volumes in",
}


class Resampling(Result):
    """How many groups, of how many pictures, the 95 % intervals of a result resample, and who says so.

    ``source`` is the file or the regular expression that names the groups.
    """

    by: GroupedBy = ""
    source: str = ""
    num_groups: int = 0
    num_images: int = 0

    @property
    def text(self) -> str:
        """One sentence for people; empty where nothing is known."""
        if not self.num_images:
            return ""
        pictures = f"{self.num_images} picture{'s' * (self.num_images != 1)}"
        groups = f"{self.num_groups} group{'s' * (self.num_groups != 1)}"
        if self.by in WORDS:
            return f"Intervals resample {groups} of {pictures}: {WORDS[self.by]} {self.source}."
        if self.by == "near-duplicates" and self.num_groups < self.num_images:
            return (
                f"Intervals resample {groups} of {pictures}: pictures that look nearly the same count as "
                "one group. If several pictures are of one patient or slide, say so with --groups or "
                "--group-from."
            )
        return (
            f"Intervals resample {pictures} as if each were independent. If several are of one patient or "
            "slide, say so with --groups or --group-from."
        )
