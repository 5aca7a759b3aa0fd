"""Every score and rule of a scorecard in plain words, for reports."""

MIN_IMAGES = 8
"""Fewer evaluable images than this get no verdict: a bootstrap over them is too narrow to be trusted."""

CLAIM_IMAGES = 100
"""Fewer than this give an indication, not a claim, and the row says so."""

COMPLETE = 0.05
"""Relative error of Integrated Gradients' completeness that is still called complete."""

DEFINITIONS = {
    "faithfulness": "Faithfulness (ROAD, Rong et al. 2022): cells are removed by noisy linear imputation in "
    "the order of the map. Mean over the removed fractions .1 to .9 of (score with the least relevant cells "
    "removed - score with the most relevant removed) / (score of the picture - score of the blurred "
    "picture); the score is the mean class probability over the frozen region. 0 is an order that knows "
    "nothing. An image is evaluable where blurring takes more than .1 from its score. Padding is neither "
    "ranked nor removed. s_dice is the same quotient of another score: how much of the whole answer is left "
    "(soft Dice of the class's probability with that on the clean picture).",
    "target_faithfulness": "Faithfulness at the target's scale. We remove, in the order of the map, so many "
    "pixels as 1/8, 1/4, 1/2, 1, 2 and 4 times the target has (deletion), and then all pixels but so many "
    "(insertion). deletion is the mean of (score with the least relevant removed - score with the most "
    "relevant removed), insertion that of (score with the most relevant kept - score with the least relevant "
    "kept), both as shares of (score of the picture - score of the blurred picture); the value is the mean "
    "of both. 0 is an order that knows nothing. Cells are small enough that 8 of them lie across the target. "
    "Steps above .9 of the picture are left out. Read this score where targets are small: steps of a tenth "
    "of the picture remove all of such a target at once.",
    "context_faithfulness": "The same as faithfulness, with the same denominator, but with the region and a "
    "margin of a sixteenth of the picture left intact: only what is outside is ranked and removed. To be "
    "read next to the model's context reliance, 1 - (mean score with the region laid on other pictures) / "
    "(score of the picture): where that is below .02 there is no context to find, and an image is not "
    "evaluable. It is not a bad mark. context_worth is the share of the score that blurring the context "
    "alone takes, about the most that an order of its cells could reach.",
    "causal_agreement": "Spearman's rank correlation between the attribution to each cell and how far the "
    "score falls where that cell is imputed (signed), both by pixel, always in float32. The ceiling is the "
    "agreement of two imputers; maps that were made by occlusion are compared with the imputer that they "
    "were not made with.",
    "causal_agreement_context": "The same over the cells that don't touch the region or its margin, in "
    "pictures with 20 or more of them.",
    "attention": "Attention: log2 of the share of the map's mass inside the region over the region's share "
    "of the area. Circular, because the region is what was explained: never a pass. A map at the level of "
    "its mirror (the region itself, pooled to the map's grid) restates the prediction.",
    "completeness": "Completeness of Integrated Gradients: |sum of the attributions - (score of the picture "
    "- score of the baseline)| over the size of that difference. An identity of the method, so it has a "
    f"tolerance ({COMPLETE:.0%}) instead of a reference row; images whose difference of scores is too small "
    "are left out.",
    "model_dependence": "Rank correlation of a map with itself, made again with the same seed, less the mean "
    "absolute rank correlation with the map of the model with random weights (several seeds; batch norms "
    "take their statistics anew; the region is that of the trained model). Below a repeat of .9 not "
    "evaluable: fresh noise would look like dependence. entropy_gain is the entropy of the map's "
    "histogram that random weights add (after Hedström et al. 2024), as a share of the largest possible one.",
    "stability": "1 - the largest relative change of a map's pattern (the map less its mean, over the cells) "
    "under noise, brightness and contrast that leave the prediction unchanged (Dice above .98). Fresh noise "
    "gets -.4, an even map 0; a pattern that never changes gets 1, whatever it is: this says nothing without "
    "faithfulness. Compared with every reference row but the centre blob, which can't change; mirrors are "
    "those of the answer on the changed picture. flip is the rank correlation with the map of the mirrored "
    "picture, where the prediction mirrors.",
    "cells": "All scores see a map through the same cells of a picture: a grid of 16 x 16, or superpixels "
    "(SLIC) if asked for. Fractions removed are of the pixels.",
    "verdict": "pass: the lower 95 % bound of the paired difference (map - best reference row) is above 0; "
    f"fail: the upper bound is below 0; else warn. Fewer than {MIN_IMAGES} evaluable images: not evaluable; "
    f"fewer than {CLAIM_IMAGES}: an indication, not a claim.",
    "race": "Maps race in the removal scores (unless judged with --exact): pictures come in a seeded random "
    "order, a sixth of the steps is made of the first 8 and a third of the others, in turn, and after 8, 16, "
    "32 ... pictures what is decided is measured no further. The difference has a t interval then "
    "that holds for all looks together: 2.5 % at each end, spent on a look by the share of the pictures (its "
    "square at the lower end). A map that can't be expected to be decided any more is left undecided. Values "
    "and reference rows are means over the pictures that they were measured on.",
    "interval": "Intervals are 95 % percentile bootstrap intervals over groups of images (an image without "
    "group is one), paired where two maps are "
    "compared. They don't cover training the model again.",
    "references": "Reference rows: random, centre blob, edges (Sobel), mirrors of the prediction (pooled at "
    "1, 4, 16 and 32 pixels), distance to the region's edge, the probability map. None of them knows how the "
    "model works.",
    "cost": "Model dependence and stability make maps again: they are measured on 16 images, and for methods "
    "that take less than a second an image. Causal agreement occludes every cell of up to 16 images.",
}
"""By score, and by rule."""
