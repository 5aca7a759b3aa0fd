"""The glossary: the meaning of the words in a report, shown wherever they are used."""

from collections.abc import Iterable

from seglens.report.contents import RunContents
from seglens.results.names import REPEATS, null_in_words

WORDS = {
    "pooled": "Large objects weigh more here. All pixels of all pictures are counted together.",
    "per picture": (
        "Every picture weighs the same here. The score is computed for each picture, then averaged."
    ),
    "95 % interval": (
        "How far the number may be off because of the choice of test pictures. With other pictures of "
        "the same kind, the mean falls in this range 95 times out of 100. Pictures that belong together, "
        "such as those of one patient, are drawn together (bootstrap). The interval does not cover "
        "another training run or another hospital."
    ),
    "match": (
        "A true object (lesion, nucleus) is found if a predicted object overlaps it enough. Each object "
        "has one match at most. A true object without a match is missed. A predicted object without a "
        "match is invented."
    ),
    "merges and splits": (
        "Merge: one predicted object covers more than half of several true objects. Split: one true object "
        "covers more than half of several predicted objects."
    ),
    "heat map": (
        "A picture of the places that a method holds responsible for the answer. It is a claim of the "
        "method. The scorecard says how far you can trust the claim."
    ),
    "target": (
        "What we ask the heat map to explain: one class, at fixed pixels. The pixels are chosen before "
        "anything is computed, and then never change."
    ),
    "layer": "The place in the network where a map is read. Early layers see edges, late layers see objects.",
    "mass inside": "The share of the heat that lies inside the target.",
    "enrichment": (
        "How much the heat prefers the target. 0: no preference. 1: twice as much heat as area. 3: eight "
        "times as much. (Base-2 logarithm of the share of heat over the share of area.)"
    ),
    "ratio": (
        "Mean heat inside the target, divided by mean heat outside. This is not a score. We asked about "
        "exactly these pixels, so a map that only repeats the prediction also gets a high ratio."
    ),
    "reference map": (
        "A map that is made without looking into the model. Examples are noise, a blob in the centre, "
        "the edges of the picture, and a coarse copy of the predicted mask. A heat map is worth "
        "something only if it beats these."
    ),
    "coarse mask": (
        "A reference map: the predicted mask, made as coarse as the heat map. It says where the model "
        "answered. It says nothing about why."
    ),
    "maps of other pictures": "A reference map: heat maps of other pictures, measured on the mask of this "
    "picture.",
    "untrained network": "A reference map: the same method on the same network, with random weights.",
    REPEATS: (
        "This map is no better than a coarse copy of the predicted mask. It shows where the model "
        "answered. It does not show why. A high ratio does not change that."
    ),
    "pass, warn, fail": (
        "Pass: the map beats the best reference map for certain. Fail: the best reference map beats it "
        "for certain. Warn: these pictures cannot tell. (For certain: the 95 % interval of the "
        "difference does not hold 0.)"
    ),
    "not evaluable": "This score cannot be measured here. The reason is given beside it. It is not a bad "
    "mark.",
    "shortcut": (
        "Something that goes together with the object in the training pictures but is not the object, "
        "such as a tag, a ruler or a border. A model that reads it is right for the wrong reason."
    ),
    "AUROC": (
        "How well the heat on the tag tells the two models apart. 0.5: not at all, as if a coin were thrown. "
        "1: always."
    ),
    "causal check": (
        "We remove or move something in the picture and ask the model again. Only what changes the "
        "answer was used by the model."
    ),
}

SAME = {
    "references": "reference map",
    "verdict": "pass, warn, fail",
    "interval": "95 % interval",
    "per image": "per picture",
    "enrichment log2": "enrichment",
    "matching": "match",
    "merges": "merges and splits",
}
"""Words that tables define and `WORDS` has under another name: one entry is enough."""


def glossary(runs: Iterable[RunContents]) -> dict[str, str]:
    """Return what the words mean: the report's own first, then every definition that the tables bring."""
    words = dict(WORDS)
    for run in runs:
        for part in run.parts:
            for name, text in part.table.definitions.items():
                shown = null_in_words(str(name))
                words.setdefault(SAME.get(shown, shown), str(text))
    return words
