"""GeoJSON for QuPath: one file for each picture, an annotation for each object.

Coordinates are pixels from the upper left corner of the picture, as QuPath has them
(https://qupath.readthedocs.io, "Exporting annotations", "Units and origin"): the corner of the first pixel is
0, 0 and its centre .5, .5. Outlines run along the edges of pixels, so that no pixel is lost or won.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from PIL import ImageColor

from seglens.exports.marked import Cut, Marked, Picture, cut_out
from seglens.exports.rings import Piece, pieces_of

FOLDER = "geojson"


def write(picture: Picture, marked: Sequence[Marked], folder: Path) -> Mapping[str, str]:
    """Write the objects of one picture; return the file."""
    features = [
        _feature(picture, each, found, index)
        for index, each in enumerate(marked)
        for found in cut_out(each.numbers)
    ]
    file = f"{FOLDER}/{picture.place}.geojson"
    with (folder / file).open("w", encoding="utf-8") as out:
        json.dump({"type": "FeatureCollection", "features": features}, out)
    return {"geojson": file}


def _feature(picture: Picture, marked: Marked, found: Cut, index: int) -> dict[str, object]:
    category = marked.categories[found.number]
    classification: dict[str, object] = {"name": category}
    if category in marked.colours:
        classification["color"] = list(ImageColor.getrgb(marked.colours[category]))[:3]
    return {
        "type": "Feature",
        "id": str(uuid5(NAMESPACE_URL, f"{picture.place}/{index}/{found.number}")),
        "geometry": _geometry(pieces_of(found.inside), found.left, found.top),
        "properties": {
            "objectType": "annotation",
            "name": f"{category} {found.number}",
            "classification": classification,
        },
    }


def _geometry(pieces: Sequence[Piece], left: int, top: int) -> dict[str, object]:
    polygons = [
        [[[x + left, y + top] for x, y in ring] for ring in (piece.outer, *piece.holes)] for piece in pieces
    ]
    if len(polygons) == 1:
        return {"type": "Polygon", "coordinates": polygons[0]}
    return {"type": "MultiPolygon", "coordinates": polygons}
