"""All records of a segment in one go: what differs from reading them one by one is the time that it takes."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from rlaas.lake.records import DecisionRecord, OutcomeRecord
from rlaas.lake.segments import Stream

__all__ = ["decode_all"]

_decisions = msgspec.json.Decoder(DecisionRecord)
_outcomes = msgspec.json.Decoder(OutcomeRecord)


def decode_all(stream: Stream, payloads: Sequence[bytes]) -> list[DecisionRecord] | list[OutcomeRecord] | None:
    """The records of a stream, or ``None`` where one of them cannot be read: then each has to be looked at alone."""
    lines = b"\n".join(payloads)
    # A line is a payload and no payload is part of another only if none of them has an end of line of its own.
    if lines.count(b"\n") != len(payloads) - 1:
        return None
    try:
        records = _decisions.decode_lines(lines) if stream == "decisions" else _outcomes.decode_lines(lines)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    # An empty line, or one of blanks, is no record and no error either.
    return records if len(records) == len(payloads) else None
