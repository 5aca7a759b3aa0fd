"""The command ``seglens judge``: the scorecard of a run's maps, and the audit of regions."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

import seglens
from seglens.arguments.byte_sizes import say_seconds
from seglens.cli import data_options, names, printing
from seglens.cli import options as o
from seglens.cli.given_flags import READING
from seglens.cli.terminal import keep_apart, need_run, say
from seglens.errors import SettingError
from seglens.files.output import safe_name
from seglens.files.overwrite import check_output
from seglens.results.names import count

if TYPE_CHECKING:
    from seglens.folder.judge_plan import JudgePlan
    from seglens.results.scorecard import Card

RACES = ("faithfulness", "target_faithfulness", "context_faithfulness")
"""Scores that a map is measured for until it is decided."""

ScoresOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME...",
        help="faithfulness, target_faithfulness (in areas of the target), context_faithfulness, "
        "causal_agreement, completeness, model_dependence, stability, attention; all. [default: all on a "
        "GPU, the quick ones on a CPU]",
        show_default=False,
        autocompletion=names.among((*names.SCORES, "all")),
    ),
]
PicturesOption = Annotated[
    int | None,
    typer.Option(
        "--num-images",
        help="How many pictures, spread evenly over the split. [default: 100 on a GPU, 32 on a CPU]",
        show_default=False,
    ),
]
CellsOption = Annotated[
    str,
    typer.Option(
        help="What is removed at a time, and how all maps are seen: grid (16 x 16) or superpixels.",
        autocompletion=names.among(("grid", "superpixels")),
    ),
]
ExactOption = Annotated[
    bool,
    typer.Option(
        "--exact",
        help="Measure every map on every picture at every step, also once it is decided: takes "
        "several times as long.",
    ),
]
RecommendOption = Annotated[
    bool,
    typer.Option(
        "--recommend",
        help="Only say which map to show for which question, by the scorecard that is there.",
    ),
]
AuditOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="REGION...",
        help="Regions that should not matter: border, corners, marks, clipped, mask:FILE; auto: all that "
        "need no file, those that tell strata apart first.",
        show_default=False,
        autocompletion=names.among((*names.REGIONS, "mask:", "auto")),
    ),
]


class OnAudited(data_options.OnData):
    """A command with ``--data`` whose ``--groups`` may divide an audit, too."""

    reading: ClassVar[dict[str, Any]] = data_options.OnData.reading | data_options.params_of("audited")


def _divided_by(context: typer.Context) -> str | None:
    """Return what divides the audit, taken out of how data are read; None of a table of groups."""
    text = str(context.meta[READING].get("groups") or "")
    if text != "folder" and (not text.rpartition(":")[0] or Path(text).is_file()):
        return None
    del context.meta[READING]["groups"]
    return text


def judge_command(
    context: typer.Context,
    run: o.RunFolder = None,
    data: o.Data = None,
    split: o.SplitOrTest = None,
    num_images: PicturesOption = None,
    methods: o.Methods = None,
    layers: o.Layers = None,
    target: o.TargetText = "predicted",
    class_name: o.ClassName = None,
    baseline: o.Baseline = None,
    steps: o.StepsOption = None,
    scores: ScoresOption = None,
    cells: CellsOption = "grid",
    audit: AuditOption = None,
    exact: ExactOption = False,
    recommend: RecommendOption = False,
    precision: o.PredictPrecision = "32",
    epoch: o.Epoch = None,
    device: o.Device = "auto",
    seed: o.Seed = 0,
    out: o.Out = None,
    force: o.Force = False,
) -> None:
    """Test heat maps against maps made without the model."""
    if recommend:
        from seglens.results.scorecard import Card
        from seglens.results.tables import read_table

        folder = out or need_run(run) / "judge" / safe_name(split or "test")
        printing.print_recommendation(read_table(folder / "scorecard.json", Card))
        return
    groups = _divided_by(context)
    if groups and not audit:
        raise SettingError(
            f"--groups {groups} divides an audit, and there is none. Name its regions with --audit; a "
            "table of pictures that belong together is --groups FILE.csv."
        )
    # Not above: these take torch along.
    from seglens.folder.judge_plan import chosen_scores, num_images_of
    from seglens.folder.request import place_of

    keep_apart(out, run=run, data=data)
    asked = seglens.JudgeSettings(chosen_scores(scores, ""), cells=cells, precision=precision, race=not exact)
    model = seglens.load(need_run(run), epoch=epoch, device=device)
    on = model.segmenter.device.type
    judging = replace(asked, scores=chosen_scores(scores, on))
    pictures = data_options.open_other_split(context, model, split, data)
    check_output(place_of(model, pictures, out, "judge"), "judge", force=force)
    chosen, places = o.methods(methods, baseline, steps), layers or o.LAYERS
    num = num_images_of(num_images, on)
    plan = seglens.plan_judging(
        model,
        pictures,
        methods=chosen,
        layers=places,
        target=target,
        class_name=class_name,
        num_images=num,
        judging=judging,
        seed=seed,
    )
    say(
        f"Judging {count(plan.num_images, 'picture')} by {', '.join(judging.scores)}: at most "
        f"{count(plan.forwards(judging.scores), 'forward pass', 'forward passes')}."
    )
    if plan.no_verdict:
        say(plan.no_verdict)
    began = time.monotonic()
    done = seglens.judge_folder(
        model,
        pictures,
        out=out,
        methods=chosen,
        layers=places,
        target=target,
        class_name=class_name,
        num_images=num,
        judging=judging,
        plan=plan,
        audit_regions=audit or (),
        groups=groups,
        seed=seed,
        force=force,
    )
    made = plan.made(judging.scores, {} if done.card is None else done.card.passes)
    each = (time.monotonic() - began) / made
    if done.card is not None:
        say(*_ended_early(done.card, made, plan.forwards(judging.scores)))
    printing.print_judged(done, lambda left_out: say(*_left_out(left_out, plan, each)))


def _ended_early(card: "Card", made: int, most: int) -> list[str]:
    """Which maps were decided before the last picture, and how many passes were made so."""
    early = [
        row.name
        for row in card.rows
        if row.score in RACES and row.verdict != "reference" and (row.num_total or 0) < (card.num_images or 0)
    ]
    names = ", ".join(dict.fromkeys(early))
    passes = f"About {made} of at most {most} forward passes were made."
    return [f"Decided before the last picture: {names}. {passes}"] if early else []


def _left_out(scores: Sequence[str], plan: "JudgePlan", each: float) -> list[str]:
    """Which scores were left out, what they would take at most at the pace of the others, how to get them."""
    dear = [(name, plan.more((name,)) * each) for name in scores]
    costly = ", ".join(f"{name} (about {say_seconds(taken)})" if taken else name for name, taken in dear)
    return (
        [f"Left out: {costly}. To measure them, too, add --scores all --force to this command."]
        if costly
        else []
    )
