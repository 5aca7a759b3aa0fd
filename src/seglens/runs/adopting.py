"""Runs of what something else trained: weights for a network of the zoo, folders and files."""

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from seglens.arguments import checked
from seglens.data.sample import Task, is_background, task_of, with_background
from seglens.errors import ModelError, SeglensWarning, SettingError
from seglens.files.hub_address import is_address, repository_of
from seglens.files.output import new_folder
from seglens.files.overwrite import check_output
from seglens.models import adapters
from seglens.models import options as of_models
from seglens.models.adapters import HUGGING_FACE, NETWORK_FILE, network_files
from seglens.models.checkpoint import read_content, state_dicts
from seglens.models.dimensions import check_weights
from seglens.models.outputs import Outputs, check_finite
from seglens.models.own_normalisation import check_both, stored_beside
from seglens.models.segmenter import Head, ModelSpec, Normalise, Segmenter
from seglens.models.weights import State, choose_state, fit, refuse_unnamed
from seglens.models.zoo import normalisation
from seglens.results import record as records
from seglens.runs import Run, hub, load, rebuilt, wrap
from seglens.runs.bundle import adopt_bundle, is_bundle
from seglens.runs.export import read_exported
from seglens.runs.saving import save_run
from seglens.runs.trained import adopt_trained


@checked
def adopt(
    file: str | Path,
    *,
    model: str | None = None,
    encoder: str | None = None,
    width: int | None = None,
    classes: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    normalise: Normalise = "dataset",
    window: tuple[float, float] = (0.0, 1.0),
    image_size: int | Sequence[int] | None = None,
    channels: int | None = None,
    head: Head | None = None,
    options: Mapping[str, Any] | None = None,
    outputs_are: Outputs | None = None,
    output: str | int | None = None,
    weights_key: str | None = None,
    fold: str | int | Sequence[str | int] | None = None,
    mirroring: bool | None = None,
    checkpoint: str | None = None,
    out: str | Path,
    force: bool = False,
) -> Run:
    """Make a run folder ``out`` of a checkpoint that something else trained.

    ``file`` may be a folder of segmentation-models-pytorch's ``save_pretrained``: what its ``config.json``
    says is then taken. The networks of the zoo end in logits, whatever activation followed them where they
    were trained; outputs beside the masks (an auxiliary classifier) are left behind.

    Of a safetensors file that `seglens.export` wrote all is taken from its metadata.

    It may be a folder of Hugging Face's transformers (``config.json``, ``preprocessor_config.json``,
    safetensors): mean, std, size and classes left out are those of its files, and of the architecture nothing
    can be said. No code that it names is run.

    A network that is a file with its own code (ONNX, TorchScript, torch.export) is taken whole where
    ``model`` is left out. It shows no layers: occlusion, RISE, judging and audits work; of the gradient
    methods those on the input do, but not with ONNX. ``outputs_are`` is for such files, as in `wrap`.
    It may be a folder that ``nnUNetv2_train`` wrote, see `seglens.runs.trained`: all is taken from its files,
    and only such have ``fold``, ``mirroring`` (as nnU-Net does, if left out) and ``checkpoint``.

    ``hf://OWNER/NAME`` is a repository of Hugging Face's hub: what `seglens.push` put there, or any of the
    folders above. Code in it is not fetched.

    ``model`` left out is ``unet``, ``channels`` 3, ``image_size`` 256, ``classes`` background and
    foreground. ``head`` left out is told by the number of classes and the
    outputs in the file; it is never taken for ``multilabel`` unless that is named, see `wrap`. ``mean`` and
    ``std`` left out are those that the file holds beside the weights, else ImageNet's; ``normalise`` and
    ``window`` are as in `ModelSpec`. ``options`` are other
    arguments of the architecture; those that the tensors show are read from them, those that none shows are
    assumed to be the architecture's own, and the record's ``results`` say which. ``weights_key`` names one of
    several weights in the file (``model_ema``), ``output`` one of several outputs, see `wrap`.

    Raises:
        CheckpointError: the file can't be read or doesn't fit; it says which tensors.
        UnknownNameError, SettingError, ModelError: the model can't be built or run as described.
        OutputExistsError: ``out`` exists and ``force`` is not given.
    """
    began, out = time.monotonic(), Path(out)
    check_output(out, "adopt", force=force, files=[] if is_address(file) else [Path(file)])
    origin = ""
    if is_address(file):
        name, revision = repository_of(file)
        origin, file = f"hf://{name}{f'@{revision}' if revision else ''}", hub.fetch(file)
    told: dict[str, Any] = {
        "model": model,
        "encoder": encoder,
        "width": width,
        "channels": channels,
        "output": output,
        "outputs_are": outputs_are,
        "weights_key": weights_key,
        "options": options or None,
    }
    shown: dict[str, Any] = {"classes": classes, "mean": mean, "std": std, "image_size": image_size}
    shown |= {"head": head, "normalise": None if normalise == "dataset" else normalise}
    shown |= {"window": None if window == (0.0, 1.0) else window}
    of_nnunet = {"fold": fold, "mirroring": mirroring, "checkpoint": checkpoint}
    if origin and (Path(file) / records.FILE_NAME).is_file():
        of_models.refuse_given(Path(origin), "Seglens", {**told, **shown, **of_nnunet})
        shared = load(file, device="cpu")
        shared.segmenter.origin = origin
        return rebuilt(shared, out, Path(file), began, force=force)
    of_models.refuse_adapter(Path(file))
    if of_models.is_nnunet(Path(file)):
        of_models.refuse_given(Path(file), "nnU-Net", {**told, **shown})
        return adopt_trained(Path(file), fold, checkpoint, mirroring, out, began, force=force)
    if is_bundle(Path(file)):
        taken = ("classes", "output", "weights_key", "checkpoint")
        others = {key: value for key, value in {**told, **shown, **of_nnunet}.items() if key not in taken}
        of_models.refuse_given(Path(file), "a MONAI bundle", others)
        return adopt_bundle(Path(file), classes, output, checkpoint, weights_key, out, began, force=force)
    if given := [name for name, value in of_nnunet.items() if value is not None]:
        raise SettingError(
            f"{file} is no folder of nnU-Net (with plans.json), and only such have {', '.join(given)}. Leave "
            "it out, or name nnUNet_results/DATASET/TRAINER__PLANS__CONFIGURATION."
        )
    if (exported := read_exported(Path(file))) is not None:
        of_models.refuse_given(Path(file), "Seglens", {**told, **shown})
        exported.segmenter.origin = Path(file).name
        return rebuilt(exported, out, Path(file), began, force=force)
    if of_models.is_transformers(Path(file)):
        of_models.refuse_given(Path(file), "Hugging Face", told)
        network, processor = adapters.library(HUGGING_FACE).open_folder(Path(file))
        run = wrap(
            network,
            processor=processor,
            classes=classes,
            mean=mean,
            std=std,
            normalise=normalise,
            window=window,
            image_size=image_size,
            head=head,
        )
        run.segmenter.origin = Path(file).name
        return rebuilt(run, out, Path(file), began, force=force)
    classes = Task().classes if classes is None else classes
    if model is None and network_files.kind_of(Path(file)) is not None:
        network = network_files.read(Path(file))
        wanted_channels, wanted_size = network.takes
        run = wrap(
            network,
            classes=classes,
            mean=mean,
            std=std,
            normalise=normalise,
            window=window,
            image_size=image_size or wanted_size,
            channels=channels or wanted_channels or 3,
            head=head,
            outputs_are=outputs_are,
            output=output,
        )
        network.single = not _takes_two(run)
        update = {"architecture": NETWORK_FILE, "options": network.options}
        segmenter = Segmenter(network, run.spec.model_copy(update=update))
        segmenter.origin = Path(file).name
        _warn_of_own_masks(segmenter)
        return rebuilt(replace(run, segmenter=segmenter), out, Path(file), began, force=force)
    if outputs_are == "probabilities":
        raise SettingError(
            "outputs_are='probabilities' is for networks that are files with their own code; weights are put "
            "into networks that end in logits. Leave it out."
        )
    size = image_size if isinstance(image_size, int) else tuple(image_size) if image_size else 256
    file, described = of_models.open_pretrained(Path(file))
    model = of_models.agreed("model", model, described.model) or "unet"
    channels = of_models.agreed("number of channels", channels, described.channels) or 3
    options = {**(described.options or {}), **of_models.checked_options(model, options or {})}
    content = read_content(file)
    both = mean is not None and std is not None
    stored = stored_beside(content, channels, several=both) if normalise == "dataset" else ()
    default = stored[0] if stored else normalisation(None, None, channels)
    spec = ModelSpec(
        architecture=model,
        encoder=of_models.agreed("encoder", encoder, described.encoder),
        width=width,
        channels=channels,
        classes=max(2, len(classes)),
        head=head or ("sigmoid" if len(classes) == 2 else "softmax"),
        image_size=size,
        mean=tuple(mean or default[0]),
        std=tuple(std or default[1]),
        normalise=normalise,
        window=window,
        output=output,
        options=options,
    )
    check_both(mean, std, default)
    segmenter, key, state, read = _build_for(state_dicts(content, file), spec, head, weights_key, file)
    if weights_key is None:
        refuse_unnamed(segmenter.module, content, state, file)
    if (spec.mean, spec.std) in stored:
        read |= {"mean": list(spec.mean), "std": list(spec.std)}
    elif stored:
        warnings.warn(
            f"{file.name} holds a mean and std for pictures in [0, 1], {default[0]} and {default[1]}. Those "
            f"that are given are taken: {spec.mean} and {spec.std}.",
            SeglensWarning,
            stacklevel=2,
        )
    if head == "multilabel":
        classes = with_background(classes, segmenter.spec.outputs)
    task = task_of(classes, multilabel=head == "multilabel", what="The classes")
    fit(segmenter.module, state)
    check_finite(segmenter.try_out(segmenter.spec.sides))
    segmenter.origin = file.name
    assumed = of_models.assumed(segmenter.spec)
    if head is None and segmenter.spec.head == "softmax" and not is_background(task.classes[0]):
        assumed["head"] = "softmax"
    if not stored and mean is None and normalise == "dataset":
        assumed |= {"mean": list(spec.mean), "std": list(spec.std)}
    if image_size is None:
        assumed["image_size"] = size
    settings = {"file": file.name, "file_sha256": records.sha256([file]), "weights_key": key or None}
    results = {"read_from_tensors": read, "assumed": assumed}
    with new_folder(out, command="adopt", force=force) as folder:
        record = records.finish(records.start("adopt", settings=settings, results=results), began)
        record = save_run(folder, segmenter, task, record)
    return Run(segmenter, task, out, record.model_sha256)


def _takes_two(run: Run) -> bool:
    """Whether the network takes two pictures at once, of the size that it was tried with."""
    try:
        run.segmenter.trial(run.spec.sides, beside=0.1)
    except ModelError:
        return False
    return True


def _warn_of_own_masks(segmenter: Segmenter) -> None:
    """Warn where a network also returns masks, and they are not those of its probabilities here.

    Both are compared on noise of growing contrast. They differ by thresholds in files that `export` wrote.
    """
    returned: list[Any] = []
    noise = torch.rand(
        1, segmenter.spec.channels, *segmenter.spec.sides, generator=torch.Generator().manual_seed(0)
    )
    images = [0.5 + contrast * (noise - 0.5) for contrast in (0.0, 0.1, 0.3, 1.0)]
    with torch.no_grad(), segmenter.module.register_forward_hook(lambda *seen: returned.append(seen[2])):
        ours = torch.cat([segmenter.mask(segmenter(each)).long() for each in images])
    theirs = [
        torch.cat([each.reshape(1, *ours.shape[1:]) for each in found]).long()
        for found in zip(*map(tree_leaves, returned), strict=True)
        if isinstance(found[0], Tensor)
        and not found[0].is_floating_point()
        and found[0].numel() == ours[0].numel()
    ]
    if theirs and not any(torch.equal(each, ours) for each in theirs):
        other = min(int((each != ours).sum()) for each in theirs)
        warnings.warn(
            f"{segmenter.origin} gives masks, too. On noise they differ on {other} of {ours.numel()} pixels "
            "from those of its probabilities: it decides otherwise, as by thresholds of its own. Here a "
            "pixel is of the most probable class. To keep the thresholds of a run, export it as safetensors.",
            SeglensWarning,
            stacklevel=4,
        )


def _build_for(
    dicts: Mapping[str, State], spec: ModelSpec, head: Head | None, key: str | None, file: Path
) -> tuple[Segmenter, str, State, dict[str, Any]]:
    """Build ``spec`` for the weights of a file: return it with their key, the tensors, and the options read.

    Where no ``head`` is named, two outputs in the file for two classes are a softmax.
    """
    segmenter = Segmenter.from_spec(spec).eval()
    name, state = choose_state(segmenter.module, dicts, key, file)
    check_weights(state)
    last = list(segmenter.module.state_dict())[-1]
    outputs = next((tensor.shape[0] for name, tensor in state.items() if name.endswith(last)), None)
    wanted = spec
    if head == "multilabel" and outputs is not None:
        wanted = ModelSpec(**spec.model_dump(exclude={"thresholds"}) | {"classes": outputs + 1})
    elif head is None and spec.head == "sigmoid" and outputs == 2:
        wanted = spec.model_copy(update={"head": "softmax"})
    read = of_models.read_from(state, wanted)
    if wanted != spec or read:
        wanted = wanted.model_copy(update={"options": {**wanted.options, **read}})
        segmenter = Segmenter.from_spec(wanted).eval()
        name, state = choose_state(segmenter.module, dicts, key, file)
    return segmenter, name, state, read
