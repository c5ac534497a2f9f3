"""Whether an answer holds what the task expects: literal text, a hash, fields of the head.

Text is compared octet by octet, never by a pattern: a regular expression against a page of a stranger's can
run for ever. The body is looked through as it arrives; no more of it is kept than the longest text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence


class ContentCheck:
    """Looks through one answer; `mismatch` is what is wrong with it, empty when nothing is."""

    def __init__(
        self,
        *,
        contains: Sequence[str] = (),
        lacks: Sequence[str] = (),
        sha256: str = "",
        fields: Mapping[str, str] | None = None,
    ) -> None:
        self._wanted = {text: text.encode() for text in contains}
        self._unwanted = {text: text.encode() for text in lacks}
        self._sha256 = sha256.lower()
        self._fields = {name.lower(): value for name, value in (fields or {}).items()}
        self._hash = hashlib.sha256()
        self._found: set[str] = set()
        self._tail = b""
        needles = [*self._wanted.values(), *self._unwanted.values()]
        self._kept_octets = max(map(len, needles), default=1) - 1

    def read(self, part: bytes) -> None:
        """The next piece of the body."""
        if self._sha256:
            self._hash.update(part)
        if self._wanted or self._unwanted:
            # A text may lie across the border of two pieces.
            window = self._tail + part
            for text, needle in (*self._wanted.items(), *self._unwanted.items()):
                if text not in self._found and needle in window:
                    self._found.add(text)
            self._tail = window[len(window) - self._kept_octets :] if self._kept_octets else b""

    def mismatch(self, fields: Mapping[str, str], *, whole: bool) -> str:
        """What is not as expected of an answer with this head; `whole`: its body was read to the end."""
        for name, value in self._fields.items():
            if value not in fields.get(name, ""):
                return f"field {name} is without {_quoted(value)}"
        hint = f" (content-encoding {fields['content-encoding']})" if "content-encoding" in fields else ""
        for text in self._unwanted:
            if text in self._found:
                return f"body holds {_quoted(text)}"
        for text in self._wanted:
            if text not in self._found:
                read = "" if whole else " in the part that was read"
                return f"body is without {_quoted(text)}{read}{hint}"
        if self._sha256 and not whole:
            return "body was not read to its end, so its hash is unknown"
        if self._sha256 and self._hash.hexdigest() != self._sha256:
            return f"body has another hash: sha256 {self._hash.hexdigest()[:16]}...{hint}"
        if self._unwanted and not whole:
            return "body was not read to its end, so what it lacks is unknown"
        return ""


def _quoted(text: str) -> str:
    shown = text if len(text) <= 40 else text[:37] + "..."
    return "'" + "".join(letter if letter.isprintable() else "?" for letter in shown) + "'"
