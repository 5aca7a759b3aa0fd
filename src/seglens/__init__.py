"""Seglens: train segmentation models, show what they look at, and judge whether to believe it.

Names are imported when they are first used, so that ``import seglens`` and ``seglens --help`` are quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0.dev0"

_HOMES = {
    "AblationCam": "explain.ablation",
    "Check": "explain.verify",
    "ClassShare": "data.check",
    "Comparison": "compare",
    "DataSettings": "data.layout",
    "Dataset": "data.layout",
    "Entry": "data.layout",
    "Evaluation": "evaluate",
    "ExpectedGradients": "explain.sampled",
    "Explanation": "explain.explanation",
    "Explanations": "explain.explanation",
    "Exported": "runs.export",
    "Failure": "folder.chunks",
    "ExtremalMask": "explain.extremal",
    "Finding": "data.layout",
    "Findings": "data.check",
    "FusedHiResCam": "explain.fused",
    "IntegratedGradients": "explain.integrated",
    "Interval": "evaluate.intervals",
    "JudgePlan": "folder.judge_plan",
    "JudgeSettings": "judge.case",
    "Judgement": "judge.scorecard",
    "LayerInfo": "models.layers",
    "Lrp": "explain.lrp",
    "ModelSpec": "models.segmenter",
    "Occlusion": "explain.occlusion",
    "PassPlan": "explain.plan",
    "Plan": "explain.plan",
    "Prediction": "predict",
    "Rise": "explain.rise",
    "Run": "runs",
    "Sample": "data.sample",
    "Slices": "data.volumes.slices",
    "ScoreCam": "explain.channels",
    "Scorecard": "judge.scorecard",
    "SegXResCam": "explain.cams",
    "SeglensError": "errors",
    "SeglensWarning": "errors",
    "Segmenter": "models.segmenter",
    "Served": "app",
    "Shapley": "explain.shapley",
    "Share": "runtime.distributed",
    "SmoothGrad": "explain.sampled",
    "Split": "data.layout",
    "Statistics": "explain.statistics",
    "Summary": "folder.chunks",
    "SuperpixelOcclusion": "explain.occlusion",
    "Target": "explain.target",
    "Task": "data.sample",
    "TrainSettings": "train",
    "UserError": "errors",
    "Verification": "explain.verify",
    "WeakSettings": "weak.recipe",
    "adopt": "runs.adopting",
    "app": "app",
    "check_data": "data.check",
    "compare": "compare",
    "demo": "demo",
    "evaluate": "evaluate",
    "explain": "explain",
    "explain_folder": "folder",
    "export": "runs.export",
    "from_torch": "data.from_torch",
    "get_data": "data.get",
    "judge": "judge",
    "judge_folder": "folder",
    "layers": "models.layers",
    "load": "runs",
    "open_data": "data.opening",
    "open_split": "runs.data",
    "plan": "explain.plan",
    "plan_folder": "folder.planning",
    "plan_judging": "folder.judge_plan",
    "predict_files": "folder",
    "push": "sharing",
    "read_images": "data.images",
    "report": "report",
    "show": "widget",
    "show_data": "drawing.gallery",
    "slice_volumes": "data.volumes.slices",
    "spread": "runtime.distributed",
    "statistics": "explain.statistics",
    "train": "train",
    "verify": "explain.verify",
    "weak": "weak",
    "wrap": "runs",
}
"""Where each public name lives; the module of a command is itself callable (see ``callable_module.py``)."""

_MODULES = {"targets": "explain.target"}
"""Public modules under a name of their own."""

__all__ = [
    "AblationCam",
    "Check",
    "ClassShare",
    "Comparison",
    "DataSettings",
    "Dataset",
    "Entry",
    "Evaluation",
    "ExpectedGradients",
    "Explanation",
    "Explanations",
    "Exported",
    "ExtremalMask",
    "Failure",
    "Finding",
    "Findings",
    "FusedHiResCam",
    "IntegratedGradients",
    "Interval",
    "JudgePlan",
    "JudgeSettings",
    "Judgement",
    "LayerInfo",
    "Lrp",
    "ModelSpec",
    "Occlusion",
    "PassPlan",
    "Plan",
    "Prediction",
    "Rise",
    "Run",
    "Sample",
    "ScoreCam",
    "Scorecard",
    "SegXResCam",
    "SeglensError",
    "SeglensWarning",
    "Segmenter",
    "Served",
    "Shapley",
    "Share",
    "Slices",
    "SmoothGrad",
    "Split",
    "Statistics",
    "Summary",
    "SuperpixelOcclusion",
    "Target",
    "Task",
    "TrainSettings",
    "UserError",
    "Verification",
    "WeakSettings",
    "__version__",
    "adopt",
    "app",
    "check_data",
    "compare",
    "demo",
    "evaluate",
    "explain",
    "explain_folder",
    "export",
    "from_torch",
    "get_data",
    "judge",
    "judge_folder",
    "layers",
    "load",
    "open_data",
    "open_split",
    "plan",
    "plan_folder",
    "plan_judging",
    "predict_files",
    "push",
    "read_images",
    "report",
    "show",
    "show_data",
    "slice_volumes",
    "spread",
    "statistics",
    "targets",
    "train",
    "verify",
    "weak",
    "wrap",
]

if TYPE_CHECKING:
    from seglens.app import Served, app
    from seglens.compare import Comparison, compare
    from seglens.data.check import ClassShare, Findings, check_data
    from seglens.data.from_torch import from_torch
    from seglens.data.get import get_data
    from seglens.data.images import read_images
    from seglens.data.layout import Dataset, DataSettings, Entry, Finding, Split
    from seglens.data.opening import open_data
    from seglens.data.sample import Sample, Task
    from seglens.data.volumes.slices import Slices, slice_volumes
    from seglens.demo import demo
    from seglens.drawing.gallery import show_data
    from seglens.errors import SeglensError, SeglensWarning, UserError
    from seglens.evaluate import Evaluation, evaluate
    from seglens.evaluate.intervals import Interval
    from seglens.explain import explain
    from seglens.explain import target as targets
    from seglens.explain.ablation import AblationCam
    from seglens.explain.cams import SegXResCam
    from seglens.explain.channels import ScoreCam
    from seglens.explain.explanation import Explanation, Explanations
    from seglens.explain.extremal import ExtremalMask
    from seglens.explain.fused import FusedHiResCam
    from seglens.explain.integrated import IntegratedGradients
    from seglens.explain.lrp import Lrp
    from seglens.explain.occlusion import Occlusion, SuperpixelOcclusion
    from seglens.explain.plan import PassPlan, Plan, plan
    from seglens.explain.rise import Rise
    from seglens.explain.sampled import ExpectedGradients, SmoothGrad
    from seglens.explain.shapley import Shapley
    from seglens.explain.statistics import Statistics, statistics
    from seglens.explain.target import Target
    from seglens.explain.verify import Check, Verification, verify
    from seglens.folder import explain_folder, judge_folder, predict_files
    from seglens.folder.chunks import Failure, Summary
    from seglens.folder.judge_plan import JudgePlan, plan_judging
    from seglens.folder.planning import plan_folder
    from seglens.judge import judge
    from seglens.judge.case import JudgeSettings
    from seglens.judge.scorecard import Judgement, Scorecard
    from seglens.models.layers import LayerInfo, layers
    from seglens.models.segmenter import ModelSpec, Segmenter
    from seglens.predict import Prediction
    from seglens.report import report
    from seglens.runs import Run, load, wrap
    from seglens.runs.adopting import adopt
    from seglens.runs.data import open_split
    from seglens.runs.export import Exported, export
    from seglens.runtime.distributed import Share, spread
    from seglens.sharing import push
    from seglens.train import TrainSettings, train
    from seglens.weak import weak
    from seglens.weak.recipe import WeakSettings
    from seglens.widget import show


if not TYPE_CHECKING:  # or a checker would take any name for one that is there

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return import_module(f"{__name__}.{_MODULES[name]}")
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        # Importing the module of a command has bound the module, which is callable: let it stand.
        return globals().setdefault(name, value)


def __dir__() -> list[str]:
    return __all__
