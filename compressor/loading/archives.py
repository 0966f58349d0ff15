"""Check torch's zip archives for damage, since torch reads them without looking at checksums."""

import zipfile
from pathlib import Path
from zlib import error as ZlibError

from compressor.errors import CompressorError
from compressor.loading.wording import cut_list

_PART = 1 << 20
_DIRECTORY = 0x10
"""The attribute of directory entries. torch reads nothing of them, and leaves the memory as it
was."""


def require_whole(path: Path) -> None:
    """Raise an error if an archive has an entry that does not match its checksum.

    Archives saved without checksums (`torch.serialization.set_crc32_options`) have zeros in their
    place; their entries pass.

    Raises:
        CompressorError: The archive is damaged; the message names the entries.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if entry.CRC]
            damaged = [entry.filename for entry in entries if not _fits(archive, entry)]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        damaged = [str(error)]
    if damaged:
        raise CompressorError(
            f"{path.name} is damaged: {cut_list(damaged)}",
            where=str(path),
            consequence="nothing was loaded",
            next_step="copy or save the file again",
        )


def _fits(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bool:
    if entry.external_attr & _DIRECTORY:
        return False
    try:
        with archive.open(entry) as file:
            while file.read(_PART):
                pass
    except (zipfile.BadZipFile, ZlibError, EOFError, RuntimeError, NotImplementedError):
        return False
    return True
