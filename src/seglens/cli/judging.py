"""The verb ``seglens judge``: the scorecard of a run's maps, and the audit of regions."""

from dataclasses import replace
from typing import Annotated

import typer

import seglens
from seglens.cli import names, summaries
from seglens.cli import options as o
from seglens.cli.terminal import need_run
from seglens.errors import SettingError

Scores = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME...",
        help="faithfulness, context_faithfulness, causal_agreement, completeness, model_dependence, "
        "stability, attention. [default: all]",
        show_default=False,
        autocompletion=names.among(names.SCORES),
    ),
]
Audit = Annotated[
    list[str] | None,
    typer.Option(
        metavar="REGION...",
        help="Regions that should not matter: border, corners, marks, clipped, mask:FILE.",
        show_default=False,
        autocompletion=names.among((*names.REGIONS, "mask:")),
    ),
]
Groups = Annotated[
    str | None,
    typer.Option(help="Divide the audit: folder, or FILE.csv:COLUMN.", show_default=False),
]


def judge(
    run: o.RunFolder = None,
    data: o.Data = None,
    layout: o.Layout = None,
    split: o.SplitName = "test",
    num_samples: o.NumSamples = None,
    methods: o.Methods = None,
    layers: o.Layers = None,
    target: o.TargetText = "predicted",
    class_name: o.ClassName = None,
    baseline: o.Baseline = None,
    steps: o.Steps = None,
    scores: Scores = None,
    audit: Audit = None,
    groups: Groups = None,
    precision: o.PredictPrecision = "32",
    epoch: o.Epoch = None,
    device: o.Device = "auto",
    seed: o.Seed = 0,
    out: o.Out = None,
    force: o.Force = False,
) -> None:
    """Score maps next to what maps that know nothing would get."""
    if groups and not audit:
        raise SettingError("--groups divides an audit, and there is none. Name its regions with --audit.")
    judging = seglens.JudgeSettings(precision=precision)
    if scores:
        judging = replace(judging, scores=tuple(scores))
    model = seglens.load(need_run(run), epoch=epoch, device=device)
    done = seglens.judge_folder(
        model,
        seglens.open_split(model, split, data=data, layout=layout),
        out=out,
        methods=o.methods(methods, baseline, steps),
        layers=layers or o.LAYERS,
        target=target,
        class_name=class_name,
        num_images=num_samples,
        judging=judging,
        audit_regions=audit or (),
        groups=groups,
        seed=seed,
        force=force,
    )
    more = {"rows": summaries.read(done.folder / "scorecard.json")["rows"]}
    more |= {"audit": summaries.read(done.folder / "audit.json")} if audit else {}
    tables = (summaries.show_scorecard, *((summaries.show_audit,) if audit else ()))
    summaries.tell_batch("judged", done, more, *tables)
