"""Models in the layout of the Hugging Face hub: `model.safetensors`, `config.json` and a model card.

The safetensors file is our own and complete in itself; the two others describe it to the hub and to people.
This module is imported late, because it imports huggingface_hub.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import HfApi, ModelCard, ModelCardData, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # pyright: ignore[reportPrivateImportUsage] (of whichever library it speaks HTTP with)
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    RepositoryNotFoundError,
)

from gcnet.errors import GCNetError
from gcnet.files import disk_errors, prepare_folder, write_json
from gcnet.models.classifier import Classifier
from gcnet.models.detector import Detector
from gcnet.models.spec import ClassifierSpec
from gcnet.weights.files import describe_preprocessing, save_model

FILE = "model.safetensors"

CARD = """---
{{ card_data }}
---

# {{ name }}

{{ kind }} of {{ count }} classes: {{ classes }}.

```python
import gcnet

{{ use }}
```

`gcnet predict OWNER/NAME IMAGES...` and `gcnet.load_model("OWNER/NAME")` read the same weights.

## What it expects

RGB images of any size. {{ resize }} `config.json` says exactly how.

## Where it comes from

{% for key, value in provenance.items() %}- {{ key }}: {{ value }}
{% else %}Not recorded.
{% endfor %}
## Terms

The code is Apache-2.0. Weights also carry the terms of the images and of the weights that they were trained
from.
"""

USE_DETECTOR = """\
detector = gcnet.Detector.from_pretrained("OWNER/NAME")  # or the folder that this file is in
found = detector.predict_images("photo.jpg", score_threshold=0.5)[0]
found.boxes, found.scores, found.labels, found.masks  # pixels of the image as given"""

USE_CLASSIFIER = """\
classifier = gcnet.Classifier.from_pretrained("OWNER/NAME")  # or the folder that this file is in
found = classifier.predict_images("photo.jpg", top=5)[0]
found.names, found.probabilities  # best first"""


def download_model(repository: str, **options: Any) -> Path:
    """The model file of a repository, in the hub's own cache. Raises GCNetError if it cannot be fetched."""
    with _one_line(repository, f"there is no folder {repository} either"):
        return Path(hf_hub_download(repository, FILE, **options))


def save_pretrained(
    model: Detector | Classifier, folder: str | Path, card: dict[str, Any] | None = None
) -> None:
    """Writes the three files; a README that is there is kept. Raises GCNetError if they cannot be written."""
    folder, spec = prepare_folder(folder), model.spec
    config = {
        "library_name": "gcnet",
        "spec": asdict(spec),
        "preprocessing": describe_preprocessing(spec),
        "provenance": model.provenance,
    }
    with disk_errors(folder):
        save_model(model, folder / FILE)
        write_json(folder / "config.json", config)
        if not (folder / "README.md").exists():
            _card(model, card or {}).save(folder / "README.md")


def push(
    model: Detector | Classifier,
    repository: str,
    card: dict[str, Any] | None,
    *,
    private: bool | None,
    token: str | None,
    **commit: Any,
) -> str:
    """Uploads the three files. Raises GCNetError if the hub cannot be reached or refuses."""
    offline = "save_pretrained writes the same files to a folder"
    with _one_line(repository, offline), TemporaryDirectory() as folder:
        api = HfApi(token=token)
        name = api.create_repo(repository, private=private, exist_ok=True).repo_id
        save_pretrained(model, folder, card)
        return str(api.upload_folder(repo_id=name, folder_path=folder, **commit))


def _card(model: Detector | Classifier, fields: dict[str, Any]) -> ModelCard:
    """The README; `fields` (license, language, datasets, ...) are added to its header."""
    spec = model.spec
    first, second = spec.image_size
    resize = f"They are fitted in {first} x {second}"
    if isinstance(spec, ClassifierSpec):
        task, tags, use = "image-classification", ["resnet"], USE_CLASSIFIER
        kind = "Image classifier on a ResNet"
        resize = f"The short side is resized to {first}, the middle {second} x {second} is cut out"
    elif spec.roi.masks:
        task, use = "image-segmentation", USE_DETECTOR
        tags = ["instance-segmentation", "mask-rcnn", "object-detection"]
        kind = "Cascade Mask R-CNN" if spec.cascade else "Mask R-CNN"
    else:
        task, tags, use = "object-detection", ["faster-rcnn"], USE_DETECTOR.replace(", found.masks", "")
        kind = "Cascade R-CNN" if spec.cascade else "Faster R-CNN"
    context = spec.backbone.context
    blocks = "global context blocks (arXiv 1904.11492)"
    if context and context.block != "gc":
        blocks = f"context blocks ({context.block})"
    header = {
        "library_name": "gcnet",
        "license": "apache-2.0",
        "pipeline_tag": task,
        "tags": ["gcnet", "arxiv:1904.11492", *tags],
    }
    return ModelCard.from_template(
        ModelCardData(**(header | fields)),
        template_str=CARD,
        name=spec.name,
        kind=f"{kind} with {blocks}" if context else kind,
        count=spec.num_classes,
        classes=", ".join(spec.class_names),
        use=use,
        resize=f"{resize} and normalised;",
        provenance={key: _in_words(value) for key, value in model.provenance.items()},
    )


def _in_words(value: Any) -> Any:
    """The provenance of a model in words."""
    if not isinstance(value, dict):
        return value
    return ", ".join(f"{name.replace('_', ' ')} {_in_words(entry)}" for name, entry in value.items())


_OUT_OF_REACH = "{hub} is out of reach for {name} (no network, or HF_HUB_OFFLINE is set); {offline}"
_ERRORS: dict[type[Exception], str] = {  # the first one that fits
    HFValidationError: "there is no folder {name}, and it is no name of a repository on {hub} (OWNER/NAME)",
    LocalTokenNotFoundError: "{hub} asks for a login: `hf auth login`, or give a token",
    LocalEntryNotFoundError: _OUT_OF_REACH,
    RepositoryNotFoundError: "there is no {name}: no such folder, and no repository on {hub} that is open to "
    "you",
    EntryNotFoundError: "the repository {name} on {hub} has no model.safetensors: it holds no gcnet model",
    HfHubHTTPError: "{hub} does not give or take {name}: {reason}",
    ConnectionError: _OUT_OF_REACH,
    HTTPError: _OUT_OF_REACH,
}


@contextmanager
def _one_line(name: str | Path, offline: str) -> Iterator[None]:
    """The hub's errors as ours; `offline` is what to say where it is out of reach."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.ERROR)  # of each new try it would print two lines
    try:
        yield
    except tuple(_ERRORS) as error:
        words = next(words for kind, words in _ERRORS.items() if isinstance(error, kind))
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        values = {"hub": "the Hugging Face hub", "name": name, "offline": offline, "reason": reason}
        raise GCNetError(words.format(**values)) from error
    finally:
        logger.setLevel(before)
