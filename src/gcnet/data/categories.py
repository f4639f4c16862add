"""Turns the categories of annotation files into the classes of a data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from gcnet.console import listed, shown
from gcnet.data.source import Source, digits, known, warn
from gcnet.errors import GCNetError

_BACKGROUND = ("background", "_background_", "__background__")  # MediaPipe asks for the first one, as id 0


def category_names(source: Source) -> dict[int, str]:
    """Names by id, in the order of ids. A category that is listed twice counts once.

    Of several with one name, those without annotations are left out (Roboflow's root is called like its only
    class, for one) and the others are one class.
    """
    names: dict[int, str] = {}
    for category in source.categories:
        id, name = digits(category.get("id")), category.get("name")
        name = str(name) if isinstance(name, int) else name
        if not isinstance(id, int) or not isinstance(name, str):
            raise GCNetError(
                f"{source.path}: a category lacks a whole-number id or a name: {shown(category)}; add it"
            )
        if names.setdefault(id, name) != name:
            raise GCNetError(
                f"{source.path}: category id {id} occurs twice, as {shown(names[id])} and {shown(name)}; "
                "make it unique"
            )
    if source.annotations and not names:
        raise GCNetError(f"{source.path} has no categories; add at least one")
    names = dict(sorted(names.items()))
    if len(set(names.values())) < len(names):
        _drop_namesakes(source, names)
    return names


def _drop_namesakes(source: Source, names: dict[int, str]) -> None:
    """If several categories have one name, drops those without annotations."""
    ids: dict[str, list[int]] = {}
    for id, name in names.items():
        ids.setdefault(name, []).append(id)
    used = {known(annotation.get("category_id"), names) for annotation in source.annotations}
    for name, same in ids.items():
        empty = [id for id in same if id not in used]
        for id in empty[: len(same) - 1]:
            del names[id]
        if len(same) - len(empty) > 1:
            warn(source.path, f"categories {shown(same)} are all called {shown(name)}; taken as one")


def count_objects(source: Source, names: Mapping[int, str]) -> Counter[str]:
    """Annotations of each category, by name. Raises GCNetError if all are of other categories."""
    ids = (known(annotation.get("category_id"), names) for annotation in source.annotations)
    counts = Counter(names[id] for id in ids if id is not None)
    if source.annotations and not counts:
        entry = source.annotations[0]
        raise GCNetError(
            f"{source.path}: none of the {len(source.annotations)} annotations is of a listed category "
            f"(the first has category id {shown(entry.get('category_id'))}); correct the ids"
        )
    return counts


def choose_classes(
    sources: Sequence[Source], names: Sequence[Mapping[int, str]], counts: Sequence[Counter[str]]
) -> tuple[str, ...]:
    """The classes of a data set: the categories of the first source, by id; where no file lists them, of all.

    Left out is a category that no source annotates and that is only the parent of others, such as the
    root that Roboflow writes, or the background. Other categories without objects stay: COCO's 80
    are 80 in every subset.
    """
    first = sources[0]
    annotated = sum(counts, Counter[str]())
    parents = {
        parent
        for category in first.categories
        if isinstance(parent := category.get("supercategory"), str) and parent != category.get("name")
    }
    found = dict.fromkeys(names[0].values())
    if first.met:  # a split that has none of the others' classes calls them by other names
        found = dict.fromkeys(sorted({*found}.union(*(own for own in counts if own.keys() & found.keys()))))
    dropped = [
        name for name in found if (name in parents or name.lower() in _BACKGROUND) and not annotated[name]
    ]
    if dropped:
        left = listed([shown(name) for name in dropped])
        warn(first.path, f"category {left} has no objects and is only a parent or background; left out")
    for name in dropped:
        del found[name]
    if not found:
        raise GCNetError(f"{first.path} has no categories; add at least one")
    return tuple(found)


def warn_of_unlearnt(sources: Sequence[Source], counts: Sequence[Counter[str]], classes: set[str]) -> None:
    """Warns of each source with objects of classes that have none in the first source."""
    for other, own in zip(sources[1:], counts[1:], strict=True):
        unlearnt = [shown(name) for name in own if name in classes and not counts[0][name]]
        if unlearnt:
            warn(other.path, f"it has objects of {listed(unlearnt)}, but {sources[0].path} has none")
