"""Adapts class-dependent layers to other classes: rows of known classes are kept, others start random.

These are the class logits and per-class deltas of box heads and the logits of mask heads, in each stage of a
cascade, and the last layer of a classifier. Background, the last class row of a box head, keeps its row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jaxtyping import Float
from torch import Tensor

from gcnet.models.classifier import Classifier
from gcnet.models.detector import Detector
from gcnet.models.heads import BoxHead, MaskHead

Rows = tuple[int | None, ...]  # for each class, its number in the source; None for a new one


def match_classes(source: Sequence[str], target: Sequence[str]) -> Rows:
    """For each class of `target` the number of the same class in `source`, or None.

    Case does not count, and `_`, `-` and spaces are the same: "Cell_Phone" is "cell phone".
    """
    exact = {name: index for index, name in reversed(list(enumerate(source)))}
    alike = {_plain(name): index for index, name in reversed(list(enumerate(source)))}
    return tuple(exact.get(name, alike.get(_plain(name))) for name in target)


def kept_classes(source: Sequence[str], target: Sequence[str]) -> list[str]:
    """The classes of `target` that are in `source`."""
    rows = match_classes(source, target)
    return [name for name, row in zip(target, rows, strict=True) if row is not None]


def carry_over(source: Detector | Classifier, target: Detector | Classifier) -> dict[str, Tensor]:
    """The tensors of `source` with class-dependent rows reordered for the classes of `target`.

    New classes get the rows that `target` has, which are its initial ones. Tensors of other shapes than
    `target`'s are left as they are: `fill_weights` refuses them.
    """
    rows = match_classes(source.spec.class_names, target.spec.class_names)
    tensors, own = source.state_dict(), target.state_dict()
    for name, per_class, background in _class_layers(target):
        for key in (f"{name}.weight", f"{name}.bias"):
            count = source.spec.num_classes + background
            if key in tensors and tensors[key].shape == (count * per_class, *own[key].shape[1:]):
                wanted = (*rows, source.spec.num_classes) if background else rows
                tensors[key] = _rearranged(tensors[key], own[key], wanted, per_class)
    return tensors


def _class_layers(model: Detector | Classifier) -> Iterator[tuple[str, int, bool]]:
    """For each class-dependent layer: name, rows for each class, whether there is background."""
    if isinstance(model, Classifier):
        yield "fc", 1, False
    for name, module in model.named_modules():
        if isinstance(module, BoxHead):
            yield f"{name}.cls", 1, True
            if not module.class_agnostic:
                yield f"{name}.deltas", 4, False
        elif isinstance(module, MaskHead):
            yield f"{name}.logits", 1, False


def _rearranged(
    theirs: Float[Tensor, "_S *rest"], own: Float[Tensor, "_K *rest"], rows: Rows, per_class: int
) -> Float[Tensor, "_K *rest"]:
    result, known = own.clone(), theirs.unflatten(0, (-1, per_class))
    for index, row in enumerate(rows):
        if row is not None:
            result[index * per_class : (index + 1) * per_class] = known[row]
    return result


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())
