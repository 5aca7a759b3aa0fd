"""Every score and rule of a scorecard in plain words, for reports."""

MIN_IMAGES = 8
"""Fewer evaluable images than this get no verdict: a bootstrap over them is too narrow to be trusted."""

CLAIM_IMAGES = 100
"""Fewer than this give an indication, not a claim, and the row says so."""

COMPLETE = 0.05
"""Relative error of Integrated Gradients' completeness that is still called complete."""

DEFINITIONS = {
    "faithfulness": "We remove what the map calls important, then what it calls unimportant. The score "
    "should fall in the first case and stay in the second. A larger value is better; 0 is what an order "
    "by chance gets. How (ROAD, Rong et al. 2022): cells are filled from their surroundings with noise, "
    "in the order of the map. The value is the score without the least important cells, less that "
    "without the most important. It is averaged over .1 to .9 of the picture, as a share of what "
    "blurring the whole picture costs. The score is the mean probability of the class over the target. A "
    "picture is left out where blurring costs less than .1. The same with the soft Dice of the whole mask "
    "as the score stands beside it.",
    "target_faithfulness": "Faithfulness for small targets: we remove as many pixels as the target has, "
    "not tenths of the picture. A larger value is better; 0 is what an order by chance gets. Steps are "
    "1/8, 1/4, 1/2, 1, 2 and 4 times the area of the target. Deletion removes so many pixels; insertion "
    "removes all but so many. Both compare the most with the least important cells, as a share of what "
    "blurring the picture costs. The value is the mean of both. At least 8 cells lie across the target. "
    "Steps above .9 of the picture are left out.",
    "context_faithfulness": "Does the map know which surroundings matter? It is faithfulness with the "
    "target and a margin left as they are: only cells outside are removed. The margin is a sixteenth of "
    "the picture. Read it with context_reliance, the share of the score that is lost when the target is "
    "laid on other pictures. Below .02 the model does not use the surroundings, or what it uses is in all "
    "these pictures (one scanner, one stain). Then the score is not evaluable. The other number, "
    "context_worth, is the share of the score that blurring the surroundings takes.",
    "causal_agreement": "Do highly ranked cells matter most when each is removed alone? 1: the order is the "
    "same. 0: no relation. It is Spearman's rank correlation between the value of each cell and the fall of "
    "the score without it. The ceiling is how well two ways of removing agree: no map can be expected to do "
    "better. It is computed in float32.",
    "causal_agreement_context": "The same as causal agreement, for the cells outside the target and its "
    "margin. Pictures with fewer than 20 such cells are left out.",
    "attention": "How much of the map lies on the target. This proves nothing: we asked about that same "
    "region. So the verdict is never a pass. The value is log2 of the share of the map inside the target "
    "over the target's share of the area. A map that is no better than its coarse mask repeats the "
    "prediction.",
    "completeness": "Do the values of Integrated Gradients add up to what they explain? The error is the gap "
    "between their sum and the change of the score from the baseline, as a share of that change. It has a "
    f"tolerance ({COMPLETE:.0%}) and no reference map. Pictures whose score hardly changes are left out.",
    "model_dependence": "Does the map change when the network forgets what it learned? It should. The "
    "value is how alike the map is when it is made again (repeat), less how alike it is with random "
    "weights. Both are rank correlations, averaged over several seeds. Batch norms take their statistics "
    "again, and the target stays. Where repeat is below .9 the score is not evaluable, because noise "
    "would look like change. Beside it stands how much detail random weights add, as a share of the "
    "largest entropy of a histogram (entropy_gain, after Hedström et al. 2024).",
    "stability": "Does the map stay the same while the picture and the prediction hardly change? 1: it "
    "does. We add noise, brightness and contrast that leave the prediction as it is (Dice above .98). "
    "The value is 1 less the largest relative change of the map's pattern: the map less its mean. New "
    "noise each time gets -.4, an even map 0. A pattern that never changes gets 1, so read this with "
    "faithfulness. The centre blob is no reference here, as it cannot change. flip "
    "is the agreement with the map of the mirrored picture.",
    "cells": "All scores see a map through the same cells: a grid of 16 x 16, or superpixels (SLIC) on "
    "request. Shares that are removed count pixels.",
    "verdict": "pass: the map beats the best reference map for certain. fail: the best reference map "
    "beats it for certain. warn: these pictures cannot tell. For certain means that the 95 % interval of "
    f"the difference does not hold 0. Fewer than {MIN_IMAGES} evaluable pictures give no verdict. Fewer "
    f"than {CLAIM_IMAGES} give an indication, not a claim.",
    "race": "In the removal scores maps race, unless judged with --exact. Pictures come in a random order "
    "that the seed decides. A sixth of the steps is made for the first 8 pictures, a third for the others, "
    "in turn. After 8, 16, 32 ... pictures, what is decided is measured no further. The difference then has "
    "a t interval that holds for all looks together. Its error is 2.5 % at each end. It is spent by the "
    "share of the pictures (its square at the lower end). A map that cannot be expected to be decided is "
    "left undecided. Values are means over the pictures that were measured.",
    "interval": "95 % bootstrap intervals over groups of pictures, paired where two maps are compared. A "
    "picture without a group counts as one. They do not cover another training of the model.",
    "references": "Reference maps are made without looking into the model. They are noise, a centre "
    "blob, image edges, coarse copies of the predicted mask (1, 4, 16 and 32 pixels), the depth inside "
    "the mask, and the probability map.",
    "cost": "Model dependence and stability make maps again. They use 16 pictures, and methods that take "
    "less than a second for each. Causal agreement covers every cell of up to 16 pictures.",
}
"""By score, and by rule."""
