"""The methods of detectors and classifiers that load and save in the Hugging Face hub's layout."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

Model = TypeVar("Model")  # typing.Self is more than beartype can take here


class Pretrained:
    """A mixin of networks that `gcnet.weights` can read and write."""

    @classmethod
    def from_pretrained(cls: type[Model], name: str | Path, **options: Any) -> Model:
        """Loads a model from a folder that `save_pretrained` wrote, or from the Hugging Face hub.

        Args:
            name: the folder, or the repository as "OWNER/NAME".
            options: for a repository, options of `huggingface_hub.hf_hub_download`: revision, token,
                cache_dir, force_download, local_files_only.

        Returns:
            The model, on the CPU, in eval mode.

        Raises:
            GCNetError: there is no such folder or repository, it holds no model of this kind, or
                the hub is out of reach.
        """
        return _above("load").load_pretrained(cls, name, **options)

    def save_pretrained(self, folder: str | Path, *, card: dict[str, Any] | None = None) -> None:
        """Writes `model.safetensors`, `config.json` and a model card, in the Hugging Face hub's layout.

        Args:
            card: more fields for the header of the model card (README.md), such as `{"license": "mit"}`. A
                README.md that exists already is kept.

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
        """Uploads the files of `save_pretrained` to "OWNER/NAME" and returns the address of the commit.

        Args:
            repository: "OWNER/NAME"; it is created if it does not exist.
            card: as in `save_pretrained`.
            private: whether a new repository is private; None takes the account's default.
            token: a token of the hub; None takes the one that is logged in.
            branch: the branch to commit to; None takes the main one.
            create_pr: open a pull request instead of committing.

        Raises:
            GCNetError: the hub is out of reach, or refuses.
        """
        options = {"revision": branch, "create_pr": create_pr, "commit_message": commit_message}
        return _above("hub").push(self, repository, card, private=private, token=token, **options)


def _above(module: str) -> Any:
    """A module of `gcnet.weights`, imported late: that package is a layer above this one."""
    return import_module(f"gcnet.weights.{module}")
