"""Commands and snippets made quick: the same verbs and flags, fewer epochs, pixels, samples and steps."""

import re
from collections.abc import Sequence

SIZE = 64

ENCODER = "tu-mobilenetv3_small_050"
"""Fewer than half a million weights."""

ALWAYS: dict[str, dict[str, str]] = {
    "train": {
        "--epochs": "1",
        "--image-size": str(SIZE),
        "--batch-size": "4",
        "--workers": "0",
        "--logger": "none",
    },
    "adopt": {"--image-size": str(SIZE)},
    "judge": {"--num-images": "3", "--scores": "attention"},
    "weak": {
        "--classifier-weights": "none",
        "--stages": "stages.json",
        "--image-size": str(SIZE),
        "--epochs": "1",
        "--batch-size": "4",
        "--rounds": "1",
    },
}
"""What is set, whether or not the command says something else."""

WHERE_GIVEN: dict[str, dict[str, str]] = {
    "train": {"--encoder": ENCODER, "--encoder-weights": "none", "--keep-every": "1"},
    "adopt": {"--encoder": ENCODER},
    "evaluate": {"--epoch": "1"},
    "explain": {"--num-images": "2", "--steps": "4"},
    "judge": {"--steps": "4"},
    "verify": {"--num-images": "1"},
    "data": {"--image-size": str(SIZE)},
    "weak": {"--encoder": ENCODER, "--encoder-weights": "none"},
}
"""What is set where the command sets it."""

SETTINGS = {
    "rise": "rise.num_masks=8",
    "smoothgrad": "smoothgrad.num_samples=2",
    "expected-gradients": "expected-gradients.num_samples=4",
    "integrated-gradients": "integrated-gradients.steps=4",
    "occlusion": "occlusion.window=32",
    "superpixel-occlusion": "superpixel-occlusion.num_segments=4",
    "shapley": "shapley.num_segments=4",
    "extremal-mask": "extremal-mask.steps=4",
}
"""Settings of the methods that take many passes."""

STAGES = {
    "heat": {"scales": [SIZE], "maps": ["layer-cam@blocks.3"]},
    "threshold": {"rule": "fixed", "value": 0.4},
    "spread": None,
    "question": {"weights": "none"},
}
"""Stages from labels to pseudo-masks on small pictures; the classifier is as it is drawn, without a hub."""

PYTHON = [
    (r"\b(image_size|size)=\d+", rf"\1={SIZE}"),
    (r"\b(steps|samples|num_masks)=\d+", r"\1=4"),
    (r"\b(num_train|num_valid|num_test)=\d+", r"\1=4"),
    (r"\bepochs=\d+", "epochs=1, workers=0, batch_size=4, loggers=('none',)"),
    (r"\bencoder=\"[\w-]+\"", f'encoder="{ENCODER}"'),
    (r"\bencoder_weights=\"imagenet\"", "encoder_weights=None"),
    (r"\brounds=\d+", "rounds=1, pseudo=QUICK_STAGES"),
]
"""Patterns in Python, and what they become."""


def quick_words(words: Sequence[str]) -> list[str]:
    """Return the words after ``seglens``, made quick."""
    made = list(words)
    verb = made[0]
    if verb == "train" and "--repeat" in made:
        return made
    for flag, value in WHERE_GIVEN.get(verb, {}).items():
        if flag in made:
            made = with_value(made, flag, value)
    for flag, value in ALWAYS.get(verb, {}).items():
        made = with_value(made, flag, value)
    if verb == "train" and "--width" not in made and model_of(made) == "unet":
        made += ["--width", "8"]
    if verb == "weak" and "--student" not in made:
        made += ["--student", "unet", "--width", "4"]
    if verb == "explain":
        named = {word for word in made if word in SETTINGS}
        given = {word.partition(".")[0] for word in made if "=" in word}
        asked = set(SETTINGS) if "all" in made else named
        steps = {"integrated-gradients"} if "--steps" in made else set()
        extra = [SETTINGS[name] for name in SETTINGS if name in asked - given - steps]
        made += ["--set", *extra] if extra else []
    return made


def with_value(words: Sequence[str], flag: str, value: str) -> list[str]:
    """Return the words with one value of a flag in place of all that it has.

    >>> with_value("judge RUN --scores attention stability --seed 1".split(), "--scores", "attention")
    ['judge', 'RUN', '--scores', 'attention', '--seed', '1']
    """
    if flag not in words:
        return [*words, flag, value]
    place = list(words).index(flag)
    after = [index for index in range(place + 1, len(words)) if words[index].startswith("--")]
    return [*words[:place], flag, value, *(words[after[0] :] if after else ())]


def model_of(words: Sequence[str]) -> str:
    """Return the model that a command trains."""
    return words[words.index("--model") + 1] if "--model" in words else "unet"


def quick_python(text: str) -> str:
    """Return a snippet made quick."""
    for pattern, replacement in PYTHON:
        text = re.sub(pattern, replacement, text)
    return text
