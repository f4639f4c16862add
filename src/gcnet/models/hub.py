"""Models in the layout of the Hugging Face hub: `model.safetensors`, `config.json` and a model card.

The safetensors file is our own and complete in itself; the two others tell the hub and people what it is.
`Detector.from_pretrained`, `save_pretrained` and `push_to_hub` come here, so that huggingface_hub is loaded
only by those who want it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

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
from gcnet.models.detector import Detector
from gcnet.models.weights import describe_preprocessing, load_detector, save_model

FILE = "model.safetensors"

CARD = """---
{{ card_data }}
---

# {{ name }}

{{ kind }} of {{ count }} classes: {{ classes }}.

```python
import gcnet

detector = gcnet.Detector.from_pretrained("OWNER/NAME")  # or the folder that this file is in
found = detector.predict_images("photo.jpg", score_threshold=0.5)[0]
found.boxes, found.scores, found.labels, found.masks  # pixels of the picture as given
```

`gcnet predict FOLDER IMAGES...` and `gcnet.load_model("model.safetensors")` read the same weights.

## What it expects

RGB pictures of any size. They are fitted in {{ size[0] }} x {{ size[1] }} and normalised; `config.json` says
exactly how.

## Where it comes from

{% for key, value in provenance.items() %}- {{ key }}: {{ value }}
{% else %}Not recorded.
{% endfor %}
## Terms

The code is Apache-2.0. Weights also carry the terms of the pictures and of the weights that they were trained
from.
"""


class HubModel(
    PyTorchModelHubMixin,
    library_name="gcnet",
    license="apache-2.0",
    paper_url="https://arxiv.org/abs/1904.11492",
    pipeline_tag="image-segmentation",
    tags=["gcnet", "instance-segmentation", "mask-rcnn", "object-detection"],
):
    """A detector as huggingface_hub's mixin wants it."""

    def __init__(self, detector: Detector) -> None:
        self.detector = detector

    def _save_pretrained(self, save_directory: Path) -> None:
        save_model(self.detector, save_directory / FILE)
        spec = self.detector.spec
        config = {
            "library_name": "gcnet",
            "spec": asdict(spec),
            "preprocessing": describe_preprocessing(spec),
            "provenance": self.detector.provenance,
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
            return cls(load_detector(Path(model_id) / FILE))
        file = hf_hub_download(
            model_id,
            FILE,
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            token=token,
            local_files_only=local_files_only,
        )
        return cls(load_detector(file))

    def generate_model_card(self, **fields: Any) -> ModelCard:
        """The README; `fields` (license, language, datasets, ...) are added to its header."""
        spec = self.detector.spec
        header = ModelCardData(**(self._hub_mixin_info.model_card_data.to_dict() | fields))
        return ModelCard.from_template(
            header,
            template_str=CARD,
            name=spec.name,
            kind=("Cascade " if spec.cascade else "")
            + "Mask R-CNN"
            + (" with global context blocks (arXiv 1904.11492)" if spec.backbone.context else ""),
            count=spec.num_classes,
            classes=", ".join(spec.class_names),
            size=spec.image_size,
            provenance=self.detector.provenance,
        )


def pull(name: str | Path, **options: Any) -> Detector:
    """The model in a folder or a repository. Raises GCNetError if there is none that can be had."""
    with _one_line(name, f"there is no folder {name} either"):
        return HubModel.from_pretrained(name, **options).detector


def save(detector: Detector, folder: str | Path, card: dict[str, Any] | None) -> None:
    """Writes the three files; a README that is there is kept. Raises GCNetError if they cannot be written."""
    folder = prepare_folder(folder)
    try:
        HubModel(detector).save_pretrained(folder, model_card_kwargs=card)
    except OSError as error:
        raise GCNetError(f"cannot write {folder}: {error.strerror or error}; free space") from error


def push(detector: Detector, repository: str, card: dict[str, Any] | None, **options: Any) -> str:
    """Uploads the three files. Raises GCNetError if the hub cannot be reached or refuses."""
    with _one_line(repository, "save_pretrained writes the same files to a folder"):
        return str(HubModel(detector).push_to_hub(repository, model_card_kwargs=card, **options))


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
