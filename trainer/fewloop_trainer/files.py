"""Files that other processes read while they are written, or after a kill; and disks that are full."""

import errno
import json
import re
import shutil
from pathlib import Path

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_OF_RUST = re.compile(r"\(os error (\d+)\)")


def write_json(path: Path, value: object) -> None:
    """Whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
    partial.replace(path)


def is_disk_full(error: BaseException) -> bool:
    """Whether a write failed for want of room: Python's error, or that of a library written in Rust."""
    if isinstance(error, OSError):
        return error.errno in _FULL
    found = _OF_RUST.search(str(error))
    return found is not None and int(found.group(1)) in _FULL


def clear_partial(folder: Path) -> int:
    """Removes what a failed write left half done, files in folders that are among them; how many bytes that was."""
    freed = 0
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file() and any(".partial" in part for part in path.relative_to(folder).parts):
            freed += path.stat().st_size
            path.unlink()
    return freed


def disk_full_message(folder: Path, written: int) -> str:
    """What to do about it. `written`: bytes of the file that did not fit, as far as it came."""
    free, total = shutil.disk_usage(folder).free, sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    return (
        f"the disk is full: a file of more than {_megabytes(written)} did not fit into {folder}, where "
        f"{_megabytes(free)} are free now and the run already has {_megabytes(total)}. Free some space (or raise the "
        "limit on file sizes or the quota) and start the run again: what was finished is kept"
    )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
