"""Split groups: the digest of a text's normal form, computed as the service's `task/keys.ts` does.

All items of one text share a split group, so that no text stands in two splits. The contract test
`test/contract/keys.json` holds both languages to the same digests.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable

# Written out because Python's and JavaScript's `\\s` differ (U+FEFF, U+0085, U+001C to U+001F).
_WHITESPACE = re.compile("[\t-\r\x1c- \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff]+")


def normalise(text: str) -> str:
    """NFKC, lower case, whitespace runs as one space, none at the ends."""
    return _WHITESPACE.sub(" ", unicodedata.normalize("NFKC", text).lower()).strip(" ")


def split_group(text: str) -> str:
    """SHA-256 (hex) of the normalised text in UTF-8."""
    return hashlib.sha256(normalise(text).encode()).hexdigest()


def data_set_digest(rows: Iterable[tuple[str, list[str]]]) -> str:
    """SHA-256 (hex) of rows by their item keys and labels, whatever their order: of `[itemKey, labels]` as canonical
    JSON, sorted, one a line."""
    lines = (json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows)
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def twentieth(text: str) -> int:
    """The text's bucket of twenty, by its split group: 0 is kept for proofs, 1 for held-out language modelling."""
    return int(split_group(text)[:8], 16) % 20


def split_of(group: str) -> str:
    """`train`, `dev` or `test` (70, 10, 20 %) of a split group, as the service's `splitOf` assigns it."""
    bucket = int(hashlib.sha256(f"split:{group}".encode()).hexdigest()[:8], 16) % 100
    return "train" if bucket < 70 else "dev" if bucket < 80 else "test"
