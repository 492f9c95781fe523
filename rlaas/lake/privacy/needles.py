"""What is looked for: the id of a subject and its tokens, as they may be written down in a file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc

from rlaas.errors import InvalidInputError

__all__ = ["Needles", "check_subject"]

_LONGEST = 256
_SHORTEST, _FEWEST_DIGITS = 4, 8


def check_subject(subject: str) -> str:
    """Return an id that can be told from other bytes.

    Raises:
        InvalidInputError: too short or too long.
    """
    if not _SHORTEST <= len(subject) <= _LONGEST or (subject.isdecimal() and len(subject) < _FEWEST_DIGITS):
        raise InvalidInputError(
            f"subject has {len(subject)} characters; allowed: {_SHORTEST} to {_LONGEST}, or at least {_FEWEST_DIGITS} "
            "where all are digits: a shorter one cannot be told from other bytes",
            field="subject",
        )
    return subject


class Needles:
    """Texts to look for, and decisions.

    A text counts where neither a letter nor a digit stands right before or behind it: ``user-1`` is in ``user-1/a`` and
    in ``{"user":"user-1"}``, but not in ``user-17``.

    Args:
        texts: id and tokens.
        decisions: ids of the subject's decisions.
    """

    def __init__(self, texts: Iterable[str], decisions: Iterable[str] = ()) -> None:
        self.texts = tuple(sorted(set(texts)))
        self.decisions = frozenset(decisions)
        self._written = sorted({form for text in self.texts for form in _forms(text)})
        any_of = b"|".join(re.escape(form) for form in self._written)
        self._raw = re.compile(any_of)
        self._bounded = re.compile(rb"(?<![0-9A-Za-z\x80-\xff])(?:" + any_of + rb")(?![0-9A-Za-z\x80-\xff])")
        self._decided = pa.array(sorted(self.decisions), type=pa.string())

    def with_decisions(self, decisions: Iterable[str]) -> Needles:
        """The same texts, and these decisions too."""
        return Needles(self.texts, self.decisions | set(decisions))

    def inside(self, data: bytes | memoryview) -> bool:
        """Whether one of the texts stands anywhere in these bytes, as part of a longer word or not."""
        return self._raw.search(data) is not None

    def said_in(self, data: bytes) -> bool:
        """Whether one of the texts stands in a text by itself."""
        return self._bounded.search(data) is not None

    def replaced(self, data: bytes, label: bytes) -> bytes:
        """A text with ``label`` in the place of each that stands by itself."""
        return self._bounded.sub(label, data)

    def matches(self, column: pa.ChunkedArray) -> pa.ChunkedArray:
        """Which values of a column of text or bytes are, or speak of, the subject [n] (null is not)."""
        is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        found = pa.chunked_array([pa.array([False] * len(column))]) if len(column) else pa.chunked_array([], pa.bool_())
        if is_text and len(self._decided):
            found = pc.is_in(column, value_set=self._decided.cast(column.type))
        likely = None
        for form in self._written:
            # Arrow looks for the plain bytes first, which is fast; where it finds some, Python looks at what is around.
            some = pc.match_substring(column, form.decode() if is_text else form)
            likely = some if likely is None else pc.or_kleene(likely, some)
        if likely is not None and pc.any(likely).as_py():
            rows = pc.indices_nonzero(pc.fill_null(likely, False)).to_pylist()
            flags = pc.fill_null(found, False).to_pylist()
            for row in rows:
                value = column[row].as_py()
                flags[row] = flags[row] or self.said_in(value.encode() if is_text else value)
            found = pa.chunked_array([pa.array(flags, type=pa.bool_())])
        if not is_text and self.decisions:
            flags = pc.fill_null(found, False).to_pylist()
            for row, value in enumerate(column.to_pylist()):
                flags[row] = flags[row] or (value is not None and self.decided_in(value))
            found = pa.chunked_array([pa.array(flags, type=pa.bool_())])
        return pc.fill_null(found, False)

    def decided_in(self, payload: bytes) -> bool:
        """Whether a JSON document is about one of the decisions."""
        try:
            document = json.loads(payload)
        except (ValueError, RecursionError):
            return False
        return isinstance(document, dict) and document.get("decision_id") in self.decisions


def _forms(text: str) -> set[bytes]:
    """A text as UTF-8, in JSON (once or twice, as statistics in a Delta log are) and in a URL."""
    forms = {text}
    for ascii_only in (True, False):
        once = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        forms |= {once, json.dumps(once, ensure_ascii=ascii_only)[1:-1]}
    forms.add(quote(text, safe=""))
    return {form.encode("utf-8", "surrogatepass") for form in forms}
