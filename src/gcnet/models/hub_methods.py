"""How models go to the Hugging Face hub and come from it: methods that detectors and classifiers share.

`gcnet.weights.hub` does the work, so that huggingface_hub is loaded only by those who want it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

Model = TypeVar("Model")  # typing.Self is more than beartype can take here


class HubMethods:
    """Of a network: to be had from a folder or a repository by name, and to be put there."""

    @classmethod
    def from_pretrained(
        cls: type[Model],
        name: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
    ) -> Model:
        """A model from a folder that `save_pretrained` wrote or from a repository of the Hugging Face hub.

        Args:
            name: the folder, or the repository as "OWNER/NAME".
            revision, token, cache_dir, force_download, local_files_only: of a repository, as huggingface_hub
                takes them.

        Returns:
            The model, on the CPU, in eval mode.

        Raises:
            GCNetError: there is no such folder or repository, it holds no model of this kind, or
                the hub is out of reach.
        """
        from gcnet.weights.hub import pull

        return pull(
            cls,
            name,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
        )

    def save_pretrained(self, folder: str | Path, *, card: dict[str, Any] | None = None) -> None:
        """Writes `model.safetensors`, `config.json` and a model card, as the Hugging Face hub has them.

        Args:
            card: more fields for the header of the card, such as `{"license": "mit"}`. A README.md that is
                there already stays as it is.

        Raises:
            GCNetError: the folder cannot be written to.
        """
        from gcnet.weights.hub import save

        save(self, folder, card)

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

        Raises:
            GCNetError: the hub is out of reach, or refuses.
        """
        from gcnet.weights.hub import push

        return push(
            self,
            repository,
            card,
            commit_message=commit_message,
            private=private,
            token=token,
            branch=branch,
            create_pr=create_pr,
        )
