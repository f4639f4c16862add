"""Methods that detectors and classifiers share: from and to folders in the Hugging Face hub's layout."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

Model = TypeVar("Model")  # typing.Self is more than beartype can take here


class Pretrained:
    """A mixin of networks that `gcnet.weights` can read and write."""

    @classmethod
    def from_pretrained(cls: type[Model], name: str | Path, **options: Any) -> Model:
        """A model from a folder that `save_pretrained` wrote or from a repository of the Hugging Face hub.

        Args:
            name: the folder, or the repository as "OWNER/NAME".
            options: of a repository, as `huggingface_hub.hf_hub_download` takes them: revision, token,
                cache_dir, force_download, local_files_only.

        Returns:
            The model, on the CPU, in eval mode.

        Raises:
            GCNetError: there is no such folder or repository, it holds no model of this kind, or
                the hub is out of reach.
        """
        return _above("load").load_pretrained(cls, name, **options)

    def save_pretrained(self, folder: str | Path, *, card: dict[str, Any] | None = None) -> None:
        """Writes `model.safetensors`, `config.json` and a model card, as the Hugging Face hub has them.

        Args:
            card: more fields for the header of the card, such as `{"license": "mit"}`. A README.md that is
                there already stays as it is.

        Raises:
            GCNetError: the folder cannot be written to.
        """
        _above("hub").save_pretrained(self, folder, card)

    def push_to_hub(
        self,
        repository: str,
        *,
        card: dict[str, Any] | None = None,
        commit_message: str = "A model of gcnet",
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
    ) -> str:
        """Uploads what `save_pretrained` writes to "OWNER/NAME" and returns the address of the commit.

        Raises GCNetError if the hub is out of reach, or refuses.
        """
        options = {"revision": branch, "create_pr": create_pr, "commit_message": commit_message}
        return _above("hub").push(self, repository, card, private=private, token=token, **options)


def _above(module: str) -> Any:
    """Files stand above networks, which they are read into: their code is found when it is called."""
    return import_module(f"gcnet.weights.{module}")
