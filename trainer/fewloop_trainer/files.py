"""Files that other processes read while they are written, or after a kill."""

import json
from pathlib import Path


def write_json(path: Path, value: object) -> None:
    """Whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
    partial.replace(path)
