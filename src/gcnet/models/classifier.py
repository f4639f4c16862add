"""An image classifier on the detectors' backbone (arXiv 1904.11492, section 5.2).

N images, H x W pixels, C channels of the last stage, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from gcnet.errors import check_least
from gcnet.models.modes import in_eval_mode
from gcnet.models.pretrained import Pretrained
from gcnet.models.read_spec import check_spec
from gcnet.models.resnet import ResNet
from gcnet.models.spec import ClassifierSpec
from gcnet.ops.decode import as_list, as_rgb_array
from gcnet.ops.images import middle_square
from gcnet.types import Batch, Classification, ClassTargets


class Classifier(Pretrained, nn.Module):
    """A ResNet, global average pooling of c5, and one linear layer. The backbone may hold context blocks.

    `spec` holds its structure, its class names, and how images are prepared. Its tensors are `backbone.*`,
    named as a detector's, and `fc.*`, named as torchvision's. `provenance` says where its weights come from;
    it is saved with them.
    """

    mean: Tensor
    std: Tensor
    class_weights: Tensor | None

    def __init__(self, spec: ClassifierSpec) -> None:
        super().__init__()
        check_spec(spec)
        self.spec = spec
        self.provenance: dict[str, Any] = {}
        self.backbone = ResNet(spec.backbone)
        self.fc = nn.Linear(self.backbone.out_channels[-1], spec.num_classes)
        self.register_buffer("class_weights", None, persistent=False)  # how much each counts in the loss
        self.register_buffer("mean", torch.tensor(spec.image_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.image_std).view(3, 1, 1), persistent=False)

    def losses(self, batch: Batch, targets: ClassTargets) -> dict[str, Tensor]:
        """The cross-entropy with the target shares, averaged over the images: {"loss_cls": a scalar}."""
        logits = self.logits(batch.images)
        return {"loss_cls": functional.cross_entropy(logits, targets.shares, weight=self.class_weights)}

    @torch.no_grad()
    def predict(self, batch: Batch) -> Float[Tensor, "N K"]:
        """The probability of each class. Eval mode is not needed, and threads can share the model."""
        return in_eval_mode(self).logits(batch.images).float().softmax(dim=1)

    def logits(self, images: UInt8[Tensor, "N 3 H W"]) -> Float[Tensor, "N K"]:
        """The score of each class before the softmax. Images are RGB, 0 to 255, of any one size."""
        normal = (images.float() - self.mean) / self.std
        features = self.backbone(normal.to(next(self.backbone.parameters()).dtype))[-1]
        return self.fc(features.mean(dim=(2, 3)))

    def predict_images(self, images: Any | Sequence[Any], *, top: int = 5) -> list[Classification]:
        """The `top` most probable classes of images of any size. Eval mode is not needed.

        Args:
            images: one image or a list of them, each a path, a file opened in binary or its bytes, a PIL
                image, an array or a tensor: see `gcnet.ops.decode.as_rgb_array`.
            top: number of classes, 1 or more; all classes if the model has fewer.

        Returns:
            One `Classification` for each image, best class first, on the CPU.

        Raises:
            GCNetError: an image cannot be read, or is not of one of these kinds; `top` is below 1.
        """
        check_least(1, top=top)
        model = in_eval_mode(self)
        return [model.classify(model.prepare(image), top=top)[0] for image in as_list(images)]

    def prepare(self, image: Any) -> Batch:
        """A batch of one image, resized, on the model's device. `image` is as for `predict_images`."""
        array = as_rgb_array(image)
        batch = classifier_batch([middle_square(array, self.spec.image_size)], [array.shape[:2]], [0])
        return batch.to(self.mean.device)

    def classify(self, batch: Batch, *, top: int) -> list[Classification]:
        """The `top` most probable classes of each image of a batch, on the CPU."""
        best, labels = self.predict(batch).cpu().topk(min(top, self.spec.num_classes))
        names = self.spec.class_names
        return [
            Classification(ids, probabilities, tuple(names[label] for label in ids.tolist()))
            for ids, probabilities in zip(labels, best, strict=True)
        ]


def classifier_batch(
    squares: Sequence[UInt8[Any, "S S 3"]], sizes: Sequence[tuple[int, ...]], ids: Sequence[int | str]
) -> Batch:
    """A batch of square images of one size. They are not padded, since the mean over c5 would count padding.

    `sizes` are the (height, width) of the images that the squares were cut from.
    """
    images = torch.stack([torch.from_numpy(square).permute(2, 0, 1) for square in squares])
    side = images.shape[-1]
    return Batch(
        images=images,
        image_sizes=[(side, side)] * len(images),
        original_sizes=[(size[0], size[1]) for size in sizes],
        image_ids=list(ids),
    )
