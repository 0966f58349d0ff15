"""Say how files are read: what the user says of them, and what is known of the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from compressor.calls import Call
from compressor.loading.data.binding import Binding
from compressor.loading.data.language import Language
from compressor.options import DataOptions
from compressor.recover.tasks import USUAL


@dataclass(frozen=True)
class Reading:
    """How files of samples are read.

    Attributes:
        mean: Of uint8 images, per channel or one for all, after division by 255; None: ImageNet's
            for three channels, 0.5 for others.
        std: The same for the standard deviation.
        sample_rate: What recordings are resampled to, in Hz; None: they keep their own.
        window: The seconds of the pieces that recordings are cut into; None: as long as the
            network's input.
        binding: Says which names of arrays are the network's inputs.
        like: The network's inputs as far as they are known, with a batch dimension: they tell the
            size that images of a folder get, and the form of a piece of a recording.
        accepts: Returns whether the network can be run on a call, where that can be tried.
        language: What is known of a network that reads text.
        is_free: Whether sizes of `like` were made up, since the model leaves them open.
    """

    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    sample_rate: int | None = None
    window: float | None = None
    binding: Binding = field(default_factory=Binding)
    like: Call | None = None
    accepts: Callable[[Call], bool] | None = None
    language: Language | None = None
    is_free: bool = False

    @classmethod
    def of(cls, options: DataOptions, binding: Binding, like: Call | None) -> Reading:
        """Return how the options say that files are read."""
        mean, std = options.mean or None, options.std or None
        language = Language.of(None, USUAL, options)
        sound = options.sample_rate, options.window
        return cls(mean, std, *sound, binding, like, language=language)

    @property
    def image_size(self) -> tuple[int, int]:
        """Return the height and width that images of a folder get: the network's, else 224."""
        images = [x for x in self._tensors if x.ndim == 4]
        return (int(images[0].shape[2]), int(images[0].shape[3])) if images else (224, 224)

    @property
    def length(self) -> int | None:
        """Return the length of the network's token ids, where the user or a file says it."""
        ids = (x for x in self._tensors if not x.is_floating_point() and x.ndim == 2)
        return None if self.is_free else next((int(x.shape[1]) for x in ids), None)

    @property
    def signal(self) -> Tensor | None:
        """Return the first input of real numbers, where the inputs are known."""
        return next((x for x in self._tensors if x.is_floating_point() and x.ndim > 1), None)

    @property
    def _tensors(self) -> list[Tensor]:
        leaves = self.like.leaves if self.like is not None else []
        return [leaf for leaf in leaves if isinstance(leaf, Tensor)]

    def of_images_alone(self) -> list[str]:
        """Return the given options that apply to images alone, as the command line names them."""
        return [f"--{name}" for name in ("mean", "std") if getattr(self, name) is not None]

    def of_text_alone(self) -> list[str]:
        """Return the given options that apply to text alone."""
        return ["--length"] if self.language is not None and self.language.length else []

    def of_sound_alone(self) -> list[str]:
        """Return the given options that apply to recordings alone."""
        given = {"--sample-rate": self.sample_rate, "--window": self.window}
        return [name for name, value in given.items() if value is not None]
