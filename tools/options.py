"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

DataRoot = Annotated[Path, Parameter(env_var="COMPRESSOR_DATA")]
"""Folder with the trained weights and their data."""
