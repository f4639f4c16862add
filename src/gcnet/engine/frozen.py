"""Stages of the backbone that a run does not train."""

from __future__ import annotations

from gcnet.context_spec import STAGES
from gcnet.engine.run import Model
from gcnet.errors import GCNetError

NAMES = ("stem", *STAGES)
WHOLE = "backbone"


def freeze(model: Model, until: str) -> None:
    """Freezes the backbone up to the stage `until`; "own" leaves the model as it is.

    Raises GCNetError if the backbone, a caller's own, has no stages.
    """
    if until == "own":
        return
    backbone = model.backbone
    if not hasattr(backbone, "stages"):
        raise GCNetError(f"recipe: freeze is {until}, but {type(backbone).__name__} has no stages()")
    count = len(NAMES) if until == WHOLE else ("none", *NAMES).index(until)
    backbone.frozen_stages = count
    for number, modules in enumerate(backbone.stages()):
        for module in modules:
            module.requires_grad_(number >= count)


def describe_frozen(model: Model) -> str:
    """The line that says what is not trained."""
    parts = []
    count = getattr(getattr(model, "backbone", None), "frozen_stages", 0)
    if count:
        counts = [parameter.numel() for parameter in model.parameters() if not parameter.requires_grad]
        whole = sum(parameter.numel() for parameter in model.parameters())
        names = "the backbone" if count == len(NAMES) else f"the {' and '.join(NAMES[:count])}"
        parts.append(f"{names} ({sum(counts) / 1e6:.1f} of {whole / 1e6:.1f} M parameters)")
    if model.spec.backbone.norm == "frozen_stats":
        parts.append("the statistics of the backbone's norm")
    return f"frozen: {'; '.join(parts)}" if parts else "frozen: no layer"
