"""Data sets for classification: a folder for each split, and in it one for each class.

`photos/train/cat/a.jpg`, `photos/val/dog/b.png`. Images are opened only when they are needed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from gcnet.console import listed
from gcnet.data.dataset import DataSet, LabelledImage, name_splits, pick_split
from gcnet.data.divide import warn_of_unused_file
from gcnet.data.folders import files_below
from gcnet.errors import GCNetError
from gcnet.files import several
from gcnet.image_files import IMAGE_SUFFIXES, has_image_suffix, tell_aside

_LAYOUT = "train/CLASS/*.jpg and val/CLASS/*.jpg"


class ImageFolder(DataSet[LabelledImage]):
    """The images of one split, in class folders."""

    @classmethod
    def load(cls, folder: str | Path, *, class_names: Sequence[str] | None = None) -> ImageFolder:
        """The images in and below the class folders of `folder`, in the order of classes and paths.

        Files without the suffix of an image are left out and counted in a warning; hidden files are left out.

        Args:
            folder: the folder with a folder for each class.
            class_names: the classes in the order of the labels, such as those of a trained model; by default
                the names of the class folders, sorted.

        Raises:
            GCNetError: there is no class folder, one has no images, or they are not those of `class_names`.
        """
        folder = Path(folder)
        found = _classes(folder)
        names = tuple(found) if class_names is None else several(class_names)
        _check_names(folder, found, names)
        images = [LabelledImage(path, label) for label, name in enumerate(names) for path in found[name]]
        return cls(folder, images, names, tuple(range(len(names))))


def load_image_folders(root: str | Path, *, split_file: str = "") -> dict[str, ImageFolder]:
    """Reads every split of images in class folders, by name: "train", "valid", "test".

    All have the classes of the training split, or of the first one if there is none; a `split_file` has no
    effect, which is told. Raises GCNetError as `ImageFolder.load` does, for example if a split lacks a class.
    """
    warn_of_unused_file(split_file, root)
    splits: dict[str, ImageFolder] = {}
    class_names: tuple[str, ...] | None = None
    for split, folder in _find_splits(root).items():
        splits[split] = ImageFolder.load(folder, class_names=class_names)
        class_names = splits[split].class_names
    return splits


def load_image_folder(
    root: str | Path, split: str, class_names: Sequence[str], *, split_file: str = ""
) -> ImageFolder:
    """One split, with the classes of a trained model; else as `load_image_folders`."""
    warn_of_unused_file(split_file, root)
    return ImageFolder.load(pick_split(root, _find_splits(root), split), class_names=class_names)


def _find_splits(root: str | Path) -> dict[str, Path]:
    """The folders of the splits "train", "valid" (also val..., validation) and "test" that `root` has.

    Raises GCNetError where there are none or where two claim the same name.
    """
    root = Path(root)
    if not root.is_dir():
        raise GCNetError(f"{root} is not a folder; give one with {_LAYOUT}")
    folders = sorted((path.name, path) for path in root.iterdir() if path.is_dir())
    splits = name_splits(root, folders)
    if not splits:
        raise GCNetError(f"{root} holds no data set; expected {_LAYOUT}")
    return splits


def _classes(folder: Path) -> dict[str, list[Path]]:
    """The images of each class folder by its name, sorted; there is one at least in each."""
    if not folder.is_dir():
        raise GCNetError(f"{folder} is not a folder; give one with a folder of images for each class")
    folders = [path for path in sorted(folder.iterdir()) if path.is_dir() and path.name[:1] not in "._"]
    if not folders:
        raise GCNetError(f"{folder} has no class folders; put the images of each class in one of its own")
    found = {path.name: _images(path) for path in folders}
    for name, images in found.items():
        if not images:
            raise GCNetError(
                f"{folder / name} is a class without images; add some ({', '.join(IMAGE_SUFFIXES)}), "
                "or remove it"
            )
    return found


def _check_names(folder: Path, found: Collection[str], names: tuple[str, ...]) -> None:
    missing = [name for name in names if name not in found]
    unknown = [name for name in found if name not in names]
    if missing:
        raise GCNetError(
            f"{folder} has no folder for class {listed([repr(name) for name in missing], 1)}; "
            "add images of it there, or remove the class from the other splits"
        )
    if unknown:
        raise GCNetError(
            f"{folder / unknown[0]} is none of the classes ({listed(names)}); "
            "add it to the training split, or remove it"
        )


def _images(folder: Path) -> list[Path]:
    """The images in and below a folder, sorted."""
    files = sorted(files_below(folder))
    tell_aside([path.name for path in files if not has_image_suffix(path.name)], folder)
    return [path for path in files if has_image_suffix(path.name)]
