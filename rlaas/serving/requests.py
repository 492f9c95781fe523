"""Bodies of requests: decoded in one pass by msgspec, refused with one line that names the field."""

from __future__ import annotations

import json
import math
import re
from typing import Annotated, Any, NoReturn, TypeVar

import msgspec
from msgspec import Meta

from rlaas.errors import InvalidInputError, MalformedBodyError

__all__ = [
    "DecideRequest",
    "InferRequest",
    "InferTensor",
    "OutcomeItem",
    "convert_decide",
    "decode_decide",
    "decode_document",
    "decode_infer",
    "decode_outcomes",
    "malformed",
    "numbers",
]

_LARGEST_COUNT = 2**62  # as the lake stores them
Key = Annotated[str, Meta(min_length=1, max_length=256)]
Count = Annotated[int, Meta(ge=0, le=_LARGEST_COUNT)]
Time = Annotated[int, Meta(ge=0, le=253_402_300_799_999_999)]  # up to the year 9999
MAX_OUTCOMES = 10_000
MAX_OUTCOME_FIELDS = 64
_PATH = re.compile(r" - at `(?P<kind>key in )?\$(?P<path>.*?)`$")
_SOME_KEY = "[...]"
_OUT_OF_RANGE = "Number out of range"
_STEP = re.compile(r"\[(\d+)\]|([^.\[\]]+)")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<name>.*)`")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_CAPITAL = re.compile(r"[A-Z](?![A-Z])")
"""That of a word, and not of an abbreviation such as JSON."""


class DecideRequest(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Body of ``POST /api/v1/policies/{name}/decide``.

    Attributes:
        observation: one row [n_features]; or
        observations: rows [n, n_features].
        unit: sticky key, one for all rows or one each.
        session: id of the trajectory, one for all rows or one each.
        step: position within the session.
        mode: named preference of the bundle; or
        preference: weight by objective. With neither, all objectives weigh the same.
        context: JSON object, stored with the decision.
        constraints: bounds on objectives that the version's front has to keep, see
            :meth:`rlaas.serving.choosing.FrontChooser.choose`.
        entities: ids by kind, one object for all rows or one each: the deployment's features of them are filled in, and
            the observation holds the other numbers only.
    """

    observation: list[float] | None = None
    observations: list[list[float]] | None = None
    unit: Key | list[Key] | None = None
    session: Key | list[Key] | None = None
    step: Count | None = None
    mode: str | None = None
    preference: dict[str, float] | None = None
    context: dict[str, Any] | None = None
    constraints: Any = None
    entities: Any = None


class OutcomeItem(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One outcome of ``POST /api/v1/outcomes``.

    Attributes:
        outcome_id: chosen by the sender; with ``revision`` it makes the outcome idempotent.
        decision_id: from the answer of decide.
        outcome: objective values and measures by name.
        revision: a correction carries a higher one.
        terminated, truncated: how the session ended, if it did.
        time: when it was observed, UTC microseconds; default now.
    """

    outcome_id: Key
    decision_id: Annotated[str, Meta(max_length=256)]
    outcome: dict[str, float]
    revision: Count = 0
    terminated: bool = False
    truncated: bool = False
    time: Time | None = None


class _OutcomeBatch(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    outcomes: list[OutcomeItem]


class InferTensor(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A V2 input tensor; ``data`` is flat in row-major order, or nested to the depth of ``shape``.

    In a binary request it is left out, and ``parameters.binary_data_size`` says how many bytes follow the JSON.
    """

    name: str
    shape: list[Count]
    datatype: str
    data: Any = None
    parameters: dict[str, Any] | None = None


class _InferOutput(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    name: str
    parameters: dict[str, Any] | None = None


class InferRequest(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Body of the Open Inference Protocol V2 ``infer``."""

    inputs: list[InferTensor]
    id: Annotated[str, Meta(max_length=256)] | None = None
    outputs: list[_InferOutput] | None = None
    parameters: dict[str, Any] | None = None


_EXAMPLES = {
    DecideRequest: '{"observation": [...]}',
    OutcomeItem: '{"outcome_id": "...", "decision_id": "...", "outcome": {...}}',
    InferRequest: '{"inputs": [...]}',
}
Body = TypeVar("Body")
_DECIDE = msgspec.json.Decoder(DecideRequest)
_INFER = msgspec.json.Decoder(InferRequest)
_ANY = msgspec.json.Decoder()


def decode_decide(body: bytes) -> DecideRequest:
    """Decode the body of decide.

    Raises:
        MalformedBodyError: not JSON.
        InvalidInputError: JSON of another shape; names the field.
    """
    return _decode(_DECIDE, body, DecideRequest)


def convert_decide(parameters: dict[str, Any]) -> DecideRequest:
    """A decide request without observations from the parameters of another; raises like :func:`decode_decide`."""
    try:
        return msgspec.convert(parameters, DecideRequest)
    except msgspec.ValidationError as problem:
        _refuse(problem, DecideRequest, parameters, prefix="parameters")


def decode_infer(body: bytes, header_length: int | None = None) -> tuple[InferRequest, memoryview]:
    """Decode the body of V2 infer: the JSON, and the bytes of binary tensors behind it.

    Args:
        body: of the request.
        header_length: of the JSON, in a binary request.

    Raises:
        InvalidInputError: a header of no length or longer than the body; otherwise as :func:`decode_decide`.
    """
    if header_length is None:
        return _decode(_INFER, body, InferRequest), memoryview(b"")
    if body and not 1 <= header_length <= len(body):
        raise InvalidInputError(
            f"inference-header-content-length is {header_length}; allowed: 1 to {len(body)}, the bytes of the body",
            field="inference-header-content-length",
        )
    return _decode(_INFER, body[:header_length], InferRequest), memoryview(body)[header_length:]


def decode_outcomes(body: bytes) -> list[OutcomeItem]:
    """Decode one outcome, a list of them, or ``{"outcomes": [...]}``; raises like :func:`decode_decide`."""
    document = _decode(_ANY, body, OutcomeItem)
    batch = isinstance(document, dict) and "outcomes" in document
    try:
        if isinstance(document, list):
            items = msgspec.convert(document, list[OutcomeItem])
        elif batch:
            items = msgspec.convert(document, _OutcomeBatch).outcomes
        else:
            items = [msgspec.convert(document, OutcomeItem)]
    except msgspec.ValidationError as problem:
        _refuse(problem, _OutcomeBatch if batch else OutcomeItem, document)
    if not items or len(items) > MAX_OUTCOMES:
        raise InvalidInputError(
            f"outcomes has {len(items)} entries; allowed: 1 to {MAX_OUTCOMES} per request", field="outcomes"
        )
    return items


def numbers(data: Any, *, field: str) -> list[Any]:
    """``data`` as a flat or singly nested list of numbers.

    Raises:
        InvalidInputError: anything else.
    """
    nested = isinstance(data, list) and bool(data) and isinstance(data[0], list)
    try:
        return msgspec.convert(data, list[list[float]]) if nested else msgspec.convert(data, list[float])
    except msgspec.ValidationError as problem:
        _refuse(problem, InferTensor, data, prefix=field)


def _decode(decoder: msgspec.json.Decoder[Body], body: bytes, kind: type[msgspec.Struct]) -> Body:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as problem:
        _refuse(problem, kind, body)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        hint = ""
        if kind is InferRequest and "trailing" in str(problem):
            hint = (
                "; bytes of tensors behind it need the header inference-header-content-length, the length of the JSON"
            )
        raise malformed(body, problem, example=_EXAMPLES[kind], hint=hint) from None
    except RecursionError:
        raise MalformedBodyError("body is nested too deeply", field="body") from None


def _refuse(problem: msgspec.ValidationError, kind: type[msgspec.Struct], document: Any, prefix: str = "") -> NoReturn:
    """Raise the complaint of msgspec with the field in the caller's words."""
    text = str(problem)
    where = _PATH.search(text)
    path = where["path"].removeprefix(".") if where else ""
    text = text[: where.start()] if where else text
    if text == _OUT_OF_RANGE and isinstance(document, bytes):
        path = _path_of_non_finite(document) or path
    if path.endswith(_SOME_KEY):
        path = _name_key(path.removesuffix(_SOME_KEY), document)
    if kind is OutcomeItem and path.startswith("["):
        path = f"outcomes{path}"
    unknown, missing = _UNKNOWN.fullmatch(text), _MISSING.fullmatch(text)
    if missing is not None:
        path = f"{path}.{missing['name']}" if path else missing["name"]
        text = "missing, but required"
    if unknown is not None:
        name = unknown["name"][:80]
        owner = _struct_at(kind, path)
        path = f"{path}.{name}" if path else name
        text = f"unknown field; allowed: {', '.join(owner.__struct_fields__)}"
    path = f"{prefix}{'' if not path or path.startswith('[') else '.'}{path}" if prefix else path
    path = path or "body"
    raise InvalidInputError(f"{path}: {_uncapitalised(text)}", field=path) from None


def _name_key(path: str, document: Any) -> str:
    """Msgspec does not say which value of a mapping it refused: the first that is not a finite number."""
    try:
        value = msgspec.json.decode(document) if isinstance(document, bytes) else document
        for index, name in _STEP.findall(path):
            value = value[int(index)] if index else value[name]
        for key, number in value.items():
            if isinstance(number, bool) or not isinstance(number, int | float):
                return f"{path}.{key[:80]}"
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, LookupError, TypeError, AttributeError):
        return path  # a number beyond the range of a double stops this decoder too
    return path


def _struct_at(kind: type[msgspec.Struct], path: str) -> type[msgspec.Struct]:
    if kind is InferRequest and path.startswith("inputs"):
        return InferTensor
    if kind is InferRequest and path.startswith("outputs"):
        return _InferOutput
    return OutcomeItem if kind is _OutcomeBatch and path else kind


def _uncapitalised(text: str) -> str:
    return _CAPITAL.sub(lambda found: found[0].lower(), text, count=1) if _CAPITAL.match(text) else text


def decode_document(body: bytes, *, field: str = "body") -> Any:
    """Any JSON value.

    Raises:
        MalformedBodyError: it is none.
    """
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise malformed(body, problem, field=field) from None


def malformed(
    body: bytes, problem: Exception, *, example: str = "", hint: str = "", field: str = "body"
) -> MalformedBodyError:
    """What is wrong with a body that is not JSON.

    Args:
        body: as it came.
        problem: of its decoding.
        example: of what was wanted.
        hint: added to what the decoder says.
        field: what the sender calls it.
    """
    if not body.strip():
        wanted = f" like {example}" if example else ""
        return MalformedBodyError(f"the {field} is empty; send a JSON object{wanted}", field=field)
    # Python writes NaN and Infinity without being asked: find the field that holds one.
    path = _path_of_non_finite(body)
    if path is not None:
        return MalformedBodyError(f"{path or field} is NaN or Infinity, which JSON does not have", field=path or field)
    reason = _uncapitalised(str(problem).removeprefix("JSON is malformed: ")) + hint
    if body.startswith(_BYTE_ORDER_MARK):
        reason = "it begins with a byte order mark; leave that out"
    return MalformedBodyError(f"{field} is not valid JSON: {reason}", field=field)


def _path_of_non_finite(body: bytes) -> str | None:
    """The first field that holds NaN, Infinity or a number beyond a double; None where Python cannot say."""
    try:
        return _non_finite(json.loads(body), "")
    except (ValueError, RecursionError):
        return None


def _non_finite(value: Any, path: str) -> str | None:
    if isinstance(value, float):
        return None if math.isfinite(value) else path
    children: list[tuple[str, Any]] = []
    if isinstance(value, dict):
        children = [(f"{path}.{key}" if path else str(key), item) for key, item in value.items()]
    elif isinstance(value, list):
        children = [(f"{path}[{index}]", item) for index, item in enumerate(value)]
    return next((found for name, item in children if (found := _non_finite(item, name)) is not None), None)
