"""Where things lie: in the checkout's git-ignored folder, in pieces that travel one by one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PACK = ROOT / ".gpu"
SITE = PACK / "site"
"""Where the wheels are installed on the machine."""
EARLIER = PACK / "earlier"
"""What earlier calls recorded, and the checkpoints with which a further one goes on."""

RECORDS, LOG, TABLES = "records.jsonl", "log.txt", "tables"
"""Names in the folder that comes back: lines, what was printed, layers' times."""

PIECES: Mapping[str, tuple[str, ...]] = {
    "1": ("cifar10_resnet56.safetensors", "cifar10_test.npz", "cifar10_train_1.npz"),
    "2": ("cifar10_train_2.npz", "cifar10_train_3.npz"),
    "3": ("cifar10_train_4.npz", "cifar10_train_5.npz"),
}
"""Files of data by piece; the first holds the wheels and the networks made ahead too."""

MOST_BYTES = 60 * 2**20
"""Of one piece."""

WHEELS, NETWORKS = PACK / "1" / "wheels", PACK / "1" / "networks"


def missing_data() -> list[str]:
    """Names of the data files that no piece has brought yet."""
    return [
        name
        for piece, names in PIECES.items()
        for name in names
        if not (PACK / piece / name).exists()
    ]


def data_root() -> Path:
    """One folder with all data files that are there, as links to the pieces."""
    folder = PACK / "data"
    folder.mkdir(parents=True, exist_ok=True)
    for piece, names in PIECES.items():
        for name in names:
            file, link = PACK / piece / name, folder / name
            if file.exists() and not link.exists():
                link.unlink(missing_ok=True)
                link.symlink_to(file)
    return folder
