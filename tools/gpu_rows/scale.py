"""How large everything is: as it is meant on a GPU, or tiny, to see that all of it runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tools.gpu_rows.places import NETWORKS, PACK, data_root


@dataclass(frozen=True)
class Scale:
    """Attributes:
    out: Where records, checkpoints and the log are written.
    is_dry: Tiny networks, made-up data, on the CPU.
    """

    out: Path
    is_dry: bool = False

    @property
    def device(self) -> str:
        return "cpu" if self.is_dry else "cuda"

    @property
    def made(self) -> tuple[Path, ...]:
        """Folders of networks that were made before; new ones go to the last."""
        return (self.out / "made",) if self.is_dry else (NETWORKS, PACK / "made")

    @property
    def data(self) -> Path:
        return data_root()
