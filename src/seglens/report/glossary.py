"""The glossary: the meaning of the words in a report, shown wherever they are used."""

from collections.abc import Iterable

from seglens.report.contents import RunContents
from seglens.results.names import RESTATES

WORDS = {
    "pooled": "Counted over all pixels of all pictures together, so large objects weigh more than small.",
    "per picture": "Computed for each picture by itself and then averaged: every picture weighs the same.",
    "95 % interval": (
        "Where the mean would fall in 95 of 100 repetitions with other pictures of the same kind "
        "(bootstrap over groups of pictures that belong together, such as those of a patient). It does "
        "not cover another training run or another hospital."
    ),
    "match": (
        "A true and a predicted object (lesion, nucleus) whose intersection over union is large enough; "
        "each has "
        "one match at most. A true object without one is missed, a predicted one invented."
    ),
    "merges and splits": (
        "Merges: predicted objects in which more than half of each of several true ones lies. Splits: true "
        "objects in which more than half of each of several predicted ones lies."
    ),
    "heat map": (
        "A picture of the places that a method holds responsible for the model's answer. It is a claim of "
        "the method, not a measurement of the model; the scorecard says how far the claim can be trusted."
    ),
    "target": (
        "The question that a heat map answers: which class, and at which pixels. The pixels are frozen "
        "before anything is computed."
    ),
    "layer": "The place in the network where a map is read. Early layers see edges, late layers objects.",
    "mass inside": "The share of the heat that lies inside the target region.",
    "enrichment": (
        "Base-2 logarithm of the share of heat inside over the share of area inside: 0 means no preference, "
        "3 means eight times more heat than area."
    ),
    "ratio": (
        "Mean heat inside the target region over mean heat outside. It is not a score: the region is the "
        "very set of pixels whose answer was explained, so a map that merely restates it gets a high ratio."
    ),
    "null": "What a map without any content gets: the bar to clear before a value means anything.",
    "mirror": (
        "A null: the predicted mask itself, made coarse. It knows where the model answered, but not why."
    ),
    "other images": "A null: the maps of other pictures, measured on this picture's mask.",
    "randomised model": "A null: the same method on the same model with its weights drawn at random.",
    RESTATES: (
        "A map that does no better than the mirror. It shows where the model answered, not why; a high ratio "
        "is no praise for it."
    ),
    "pass, warn, fail": (
        "Pass: the map beats its best null for certain (the lower end of the interval of the difference is "
        "above 0). Fail: it is beaten for certain. Warn: these pictures cannot tell."
    ),
    "not evaluable": "The score says nothing here, for the reason given. That is not a bad mark.",
    "shortcut": (
        "A feature that goes with the answer in the training pictures but is not the thing itself, such as a "
        "tag, a ruler or a border."
    ),
    "AUROC": (
        "How well the heat on the tag tells the model that uses the tag from one that does not: 0.5 is a "
        "coin toss, 1 is certain."
    ),
    "causal check": (
        "The feature is removed or moved and the model asked again. Only what changes the answer was used."
    ),
}


def glossary(runs: Iterable[RunContents]) -> dict[str, str]:
    """Return what the words mean: the report's own first, then every definition that the tables bring."""
    words = dict(WORDS)
    for run in runs:
        for part in run.parts:
            for name, text in part.table.definitions.items():
                words.setdefault(str(name).replace("_", " "), str(text))
    return words
