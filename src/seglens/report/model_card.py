"""The model card of a run: what it is, how good, what it looks at, and what nobody measured. Needs no torch.

It says what records and results say, and names no picture, path or person.
"""

import re
from collections.abc import Mapping, Sequence

from seglens.report.contents import Evaluated, RunContents
from seglens.report.findings import findings
from seglens.report.wording import about_maps
from seglens.results.names import count, number
from seglens.results.record import DataRecord, ModelRecord, TaskRecord
from seglens.results.spread import Spread

SHOWN = ("dice", "iou", "precision", "recall", "boundary_iou", "nsd", "hd95")
"""Scores of a picture that the card shows, where they were measured."""


def model_card(run: RunContents, name: str) -> str:
    """Return the card of a run as Markdown; ``name`` is that of its repository."""
    record = run.record
    model, task = record.model or ModelRecord(), record.task or TaskRecord()
    parts = [
        "---\nlibrary_name: seglens\npipeline_tag: image-segmentation\ntags:\n- seglens\n---\n",
        f"# {name.rpartition('/')[2]}\n",
        *_lines("Model", _about_model(model, task, record.kind)),
        *_lines("Data", _about_data(record.data, record.results, record.kind)),
        *_lines("Scores", _about_scores(run.evaluations)),
        *_lines("What it looks at", _about_maps(run)),
        *_lines("Limits", _limits(run)),
        "## Use\n",
        f"```bash\npip install seglens\nseglens adopt hf://{name} --run runs/theirs\n```\n",
    ]
    return "\n".join(parts)


def _lines(title: str, lines: Sequence[str]) -> list[str]:
    return [f"## {title}\n", *lines, ""]


def _plain(name: object) -> str:
    """Return a name on one line in which nothing is markup: names come from data."""
    return re.sub(r"([\\`*_{}\[\]<>#|!~])", r"\\\1", " ".join(str(name).split()))


def _about_model(model: ModelRecord, task: TaskRecord, kind: str) -> list[str]:
    encoder = f" with {model.encoder}" if model.encoder else ""
    what = "volumes" if model.dims == 3 else "pictures"
    channels = "channels not known" if model.channels is None else count(model.channels, "channel")
    found = [
        f"- {model.architecture}{encoder}, for {what} of {channels}, input of {model.input_size}",
        f"- classes: {', '.join(map(_plain, task.classes))} ({model.head})",
        f"- {'trained' if kind == 'train' else 'adopted: trained elsewhere'}",
    ]
    if model.head != "softmax":
        found.append(f"- threshold: {list(model.thresholds) or model.threshold}")
    return found


def _about_data(data: DataRecord | None, results: Mapping[str, object], kind: str) -> list[str]:
    if kind != "train" or data is None:
        return ["Not known here: the record holds no data of a training."]
    numbers = {key: value for key, value in results.items() if key.startswith("num_")}
    counted = ", ".join(
        f"{key.removeprefix('num_').replace('_', ' ')}: {value}" for key, value in numbers.items()
    )
    layout = data.layout or "found by itself"
    return [f"Trained on a set of the layout {layout}{f' ({counted})' if counted else ''}."]


def _about_scores(evaluations: Sequence[Evaluated]) -> list[str]:
    if not evaluations:
        return ["Not measured. Don't use it before it is: `seglens evaluate`."]
    rows = ["| split | score | mean over pictures | 95 % interval | pictures |", "|---|---|---|---|---|"]
    for part in evaluations:
        for name in SHOWN:
            found = part.table.average(name)
            if found.mean is not None:
                rows.append(
                    f"| {_plain(part.split)} | {name.replace('_', ' ')} | {number(found.mean, 3)} | "
                    f"{_interval(found)} | {part.table.num_images} |"
                )
    failed = sum(part.table.num_failed for part in evaluations)
    return rows + ([f"\n{count(failed, 'picture')} could not be scored."] if failed else [])


def _interval(found: Spread) -> str:
    if found.low is None or found.high is None:
        return "none"
    return f"{number(found.low, 3)} to {number(found.high, 3)}"


def _about_maps(run: RunContents) -> list[str]:
    found = [
        f"- **{_plain(each.title)}** ({each.verdict or 'measured'}): {_plain(each.text)}"
        for each in findings(run)
    ]
    maps = about_maps(run.explanations)
    if maps:
        found = [f"- {maps}", *found]
    return found or ["Not looked at: `seglens explain`, `seglens judge`."]


def _limits(run: RunContents) -> list[str]:
    found = []
    if not run.evaluations:
        found.append("- No score was measured on pictures that it was not trained on.")
    elif all(part.split in ("train", "all") for part in run.evaluations):
        found.append("- Scores are of pictures that may be those of its training.")
    found += [
        f"- {_plain(part.split)}: {part.table.trained_on}"
        for part in run.evaluations
        if part.table.trained_on
    ]
    if not run.scorecards:
        found.append("- Whether its explanations deserve belief was not measured.")
    if not any(part.audit for part in run.scorecards):
        found.append("- It was not audited for shortcuts.")
    found.append(
        "- Scores hold for pictures like those that they were measured on: another device, site or "
        "population needs its own."
    )
    return found
