"""The request that is made of every picture of a folder, checked before any work is done."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from seglens.arguments.inputs import names_of
from seglens.data.layout import Split
from seglens.errors import DataError, ModelError, SettingError, UserError
from seglens.explain.explanation import check_where
from seglens.explain.methods import METHODS, Method, ParsedMethods, methods_of, parse
from seglens.explain.sampled import chosen_references, needs_references, with_references
from seglens.explain.target import Target
from seglens.explain.target_names import Scene, form_of, named_targets
from seglens.files.output import safe_name
from seglens.folder.chunks import Chunk, Failure, read_one
from seglens.models.layers import layers as layers_of
from seglens.models.layers import resolve
from seglens.predict import Prediction
from seglens.predict.original import on_one_input
from seglens.results.names import count
from seglens.runs import Run
from seglens.runs.data import own_split

ALL = "all"
"""The name that stands for every method, or for every layer that plays a role."""


@dataclass(frozen=True)
class Request:
    """Methods, layers and targets for every picture, and the bytes that may be taken, see `explain`."""

    methods: tuple[Method, ...]
    layers: tuple[str, ...]
    targets: tuple[str, ...]
    class_index: int
    against: int | None
    where: str
    seed: int
    memory: int | None = None

    @cached_property
    def parsed(self) -> ParsedMethods:
        """The methods by the pass that each needs."""
        return parse(self.methods)


def place_of(run: Run, split: Split, out: str | Path | None, command: str) -> Path:
    """Return the folder that a command writes into.

    Raises:
        SettingError: none is given, and the run has none.
    """
    if out is not None:
        return Path(out)
    if run.folder is None:
        raise SettingError(f"The run has no folder to {command} into: name one with 'out'.")
    return run.folder / command / safe_name(split.name)


def class_index_of(run: Run, name: str | None) -> int:
    """Return the class that is asked about: the first after the background where none is named."""
    return 1 if name is None else run.task.class_index(name)


def targets_of(
    run: Run,
    part: Chunk,
    texts: Sequence[str],
    class_index: int,
    *,
    against: int | None = None,
    prediction: Prediction | None = None,
) -> list[Target]:
    """Make the targets of a chunk; a ``prediction`` that is there already is not made again."""
    batch = part.batch
    predict = None if prediction is None else lambda: prediction.mask
    scene = Scene(run, batch.images, batch.masks, batch.valid, class_index, part.frames, predict)
    return named_targets(texts, scene, against=against)


def request_of(
    run: Run,
    split: Split,
    methods: Method | Sequence[Method],
    layers: str | Sequence[str],
    target: str | Sequence[str],
    class_name: str | None,
    against: str | None,
    where: str,
    seed: int,
    memory: int | None = None,
) -> Request:
    """Check everything that can be checked before any work is done.

    Raises:
        UnknownNameError, SettingError, ModelError: as `seglens.folder.explain_folder`.
    """
    texts = names_of(target)
    if not texts:
        raise SettingError("At least one target is needed, received none. Name one, such as 'predicted'.")
    for text in texts:
        form_of(text)
    check_where(where)
    index = class_index_of(run, class_name)
    other = None if against is None else run.task.class_index(against)
    if other == index:
        raise SettingError(
            f"Class {against!r} can't be asked against itself. Name another one of: "
            f"{', '.join(run.task.classes)}."
        )
    methods = methods_of(methods)
    chosen = tuple(METHODS) if ALL in methods else methods
    layers = parse(chosen).layers(layers)
    chosen = with_references_of(run, split, chosen, seed)
    places: tuple[str, ...] = ()
    if layers:
        places = _with_roles(run) if ALL in layers else layers
        resolve(run.segmenter, places)
    return Request(chosen, places, texts, index, other, where, seed, memory)


def with_references_of(run: Run, split: Split, methods: Sequence[Method], seed: int) -> tuple[Method, ...]:
    """Give methods that start from other pictures some of the run's training, or of ``split``.

    Those of ``split`` are taken where the training's are not known or not there any more; which pictures they
    were is part of the methods' settings. Pictures that can't be read are left out.

    Raises:
        DataError: none can be read.
    """
    if not needs_references(methods):
        return tuple(methods)
    try:
        source = own_split(run, "train")
    except UserError:
        source = split
    numbers = chosen_references(len(source), seed)
    read = [read_one(source, number) for number in numbers]
    placed, _ = on_one_input([one for one in read if not isinstance(one, Failure)], run.spec)
    images = [sample.image for sample in placed]
    if not images:
        raise DataError(
            f"0 of {count(len(numbers), 'picture')} of {source.name!r} could be read, from which "
            "expected-gradients would start. Leave it out of the methods, or correct the pictures."
        )
    return tuple(with_references(methods, torch.stack(images)))


def _with_roles(run: Run) -> tuple[str, ...]:
    """Return every layer that plays a role, by its first one, in the order in which they run."""
    found = tuple(layer.roles[0] for layer in layers_of(run) if layer.roles)
    if not found:
        raise ModelError(
            "No layer of this network plays a role, so 'all' can't stand for any. Name module paths; "
            "'seglens layers' lists them."
        )
    return found


def settings_of(run: Run, request: Request) -> dict[str, object]:
    """Return the settings that a result depends on, as plain data."""
    classes = run.task.classes
    return {
        "methods": [
            method if isinstance(method, str) else {"name": method.name, **_fields(method)}
            for method in request.methods
        ],
        "layers": list(request.layers),
        "targets": list(request.targets),
        "class": classes[request.class_index],
        "against": None if request.against is None else classes[request.against],
        "where": request.where,
    }


def _fields(settings: Any) -> dict[str, Any]:
    """The settings that tell one from another; pictures are no plain data, their hash is."""
    return {field.name: getattr(settings, field.name) for field in fields(settings) if field.compare}
