"""Models in the layout of the Hugging Face hub: `model.safetensors`, `config.json` and a model card.

The safetensors file is our own and complete in itself; the two others tell the hub and people what it is.
`gcnet.models.hub_methods` calls this, so that huggingface_hub is loaded only by those who want it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import ModelCard, ModelCardData, PyTorchModelHubMixin, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # pyright: ignore[reportPrivateImportUsage] (of whichever library it speaks HTTP with)
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
)

from gcnet.errors import GCNetError
from gcnet.files import prepare_folder, write_json
from gcnet.models.classifier import Classifier
from gcnet.models.detector import Detector
from gcnet.models.hub_methods import HubMethods
from gcnet.models.spec import ClassifierSpec, ModelSpec
from gcnet.weights.files import describe_preprocessing, load_model, save_model

FILE = "model.safetensors"

Model = TypeVar("Model")

CARD = """---
{{ card_data }}
---

# {{ name }}

{{ kind }} of {{ count }} classes: {{ classes }}.

```python
import gcnet

{{ use }}
```

`gcnet predict FOLDER IMAGES...` and `gcnet.load_model("model.safetensors")` read the same weights.

## What it expects

RGB pictures of any size. {{ resize }} `config.json` says exactly how.

## Where it comes from

{% for key, value in provenance.items() %}- {{ key }}: {{ value }}
{% else %}Not recorded.
{% endfor %}
## Terms

The code is Apache-2.0. Weights also carry the terms of the pictures and of the weights that they were trained
from.
"""

USE_DETECTOR = """\
detector = gcnet.Detector.from_pretrained("OWNER/NAME")  # or the folder that this file is in
found = detector.predict_images("photo.jpg", score_threshold=0.5)[0]
found.boxes, found.scores, found.labels, found.masks  # pixels of the picture as given"""

USE_CLASSIFIER = """\
classifier = gcnet.Classifier.from_pretrained("OWNER/NAME")  # or the folder that this file is in
found = classifier.predict_images("photo.jpg", top=5)[0]
found.names, found.probabilities  # best first"""


class HubModel(
    PyTorchModelHubMixin,
    library_name="gcnet",
    license="apache-2.0",
    paper_url="https://arxiv.org/abs/1904.11492",
    tags=["gcnet"],
):
    """A detector or a classifier as huggingface_hub's mixin wants it."""

    def __init__(self, model: Detector | Classifier) -> None:
        self.model = model

    def _save_pretrained(self, save_directory: Path) -> None:
        save_model(self.model, save_directory / FILE)
        spec = self.model.spec
        config = {
            "library_name": "gcnet",
            "spec": asdict(spec),
            "preprocessing": describe_preprocessing(spec),
            "provenance": self.model.provenance,
        }
        write_json(save_directory / "config.json", config)

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **_: Any,
    ) -> HubModel:
        if Path(model_id).is_dir():
            return cls(load_model(Path(model_id) / FILE))
        file = hf_hub_download(
            model_id,
            FILE,
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            token=token,
            local_files_only=local_files_only,
        )
        return cls(load_model(file))

    def generate_model_card(self, **fields: Any) -> ModelCard:
        """The README; `fields` (license, language, datasets, ...) are added to its header."""
        spec = self.model.spec
        base = self._hub_mixin_info.model_card_data.to_dict()
        task, tags = _task(spec)
        header = ModelCardData(**(base | {"pipeline_tag": task, "tags": base["tags"] + tags} | fields))
        return ModelCard.from_template(
            header,
            template_str=CARD,
            name=spec.name,
            kind=_kind(spec),
            count=spec.num_classes,
            classes=", ".join(spec.class_names),
            use=USE_CLASSIFIER if isinstance(spec, ClassifierSpec) else USE_DETECTOR,
            resize=_resize(spec),
            provenance=self.model.provenance,
        )


def _task(spec: ModelSpec | ClassifierSpec) -> tuple[str, list[str]]:
    """The hub's word for what a model does, and tags to find it by."""
    if isinstance(spec, ClassifierSpec):
        return "image-classification", ["resnet"]
    return "image-segmentation", ["instance-segmentation", "mask-rcnn", "object-detection"]


def _kind(spec: ModelSpec | ClassifierSpec) -> str:
    if isinstance(spec, ClassifierSpec):
        kind = "Image classifier on a ResNet"
    else:
        kind = "Cascade Mask R-CNN" if spec.cascade else "Mask R-CNN"
    return kind + (" with global context blocks (arXiv 1904.11492)" if spec.backbone.context else "")


def _resize(spec: ModelSpec | ClassifierSpec) -> str:
    first, second = spec.image_size
    if isinstance(spec, ClassifierSpec):
        return (
            f"The short side is resized to {first}, the middle {second} x {second} is cut out and normalised;"
        )
    return f"They are fitted in {first} x {second} and normalised;"


def pull(kind: type[Model], name: str | Path, **options: Any) -> Model:
    """The model in a folder or a repository. Raises GCNetError if there is none of this kind to be had."""
    with _one_line(name, f"there is no folder {name} either"):
        model = HubModel.from_pretrained(name, **options).model
    if not isinstance(model, kind):
        other = type(model).__name__
        raise GCNetError(
            f"{name} is a {other.lower()} ({model.spec.name}): use gcnet.{other}.from_pretrained"
        )
    return model


def save(model: HubMethods, folder: str | Path, card: dict[str, Any] | None) -> None:
    """Writes the three files; a README that is there is kept. Raises GCNetError if they cannot be written."""
    folder = prepare_folder(folder)
    try:
        _hub_model(model).save_pretrained(folder, model_card_kwargs=card)
    except OSError as error:
        raise GCNetError(f"cannot write {folder}: {error.strerror or error}; free space") from error


def push(model: HubMethods, repository: str, card: dict[str, Any] | None, **options: Any) -> str:
    """Uploads the three files. Raises GCNetError if the hub cannot be reached or refuses."""
    with _one_line(repository, "save_pretrained writes the same files to a folder"):
        return str(_hub_model(model).push_to_hub(repository, model_card_kwargs=card, **options))


def _hub_model(model: HubMethods) -> HubModel:
    assert isinstance(model, Detector | Classifier)
    return HubModel(model)


@contextmanager
def _one_line(name: str | Path, offline: str) -> Iterator[None]:
    """The hub's errors as ours; `offline` is what to say where it is out of reach."""
    hub = "the Hugging Face hub"
    try:
        yield
    except HFValidationError as error:
        raise GCNetError(
            f"there is no folder {name}, and it is no name of a repository on {hub} (OWNER/NAME)"
        ) from error
    except LocalTokenNotFoundError as error:
        raise GCNetError(f"{hub} wants to know who you are: `hf auth login`, or give a token") from error
    except LocalEntryNotFoundError as error:
        raise _out_of_reach(name, offline) from error
    except EntryNotFoundError as error:
        raise GCNetError(f"the repository {name} on {hub} has no {FILE}: it holds no gcnet model") from error
    except HfHubHTTPError as error:
        reason = str(error).strip().splitlines()[0]
        raise GCNetError(f"{hub} does not give or take {name}: {reason}") from error
    except (ConnectionError, HTTPError) as error:
        raise _out_of_reach(name, offline) from error


def _out_of_reach(name: str | Path, offline: str) -> GCNetError:
    return GCNetError(
        f"the Hugging Face hub is out of reach for {name} (no network, or HF_HUB_OFFLINE is set); {offline}"
    )
