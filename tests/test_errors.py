"""The error tree: documented, typed by what the caller does next, and able to cross processes."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from rlaas import errors


def _classes() -> dict[str, type[errors.RlaasError]]:
    return {
        name: value
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.RlaasError)
    }


def test_tree_in_the_docstring_is_the_tree_in_the_code() -> None:
    drawn = dict(re.findall(r"(\w+Error)\s+(\d{3})", errors.__doc__ or ""))
    assert {name: kind.http_status for name, kind in _classes().items()} == {n: int(s) for n, s in drawn.items()}
    assert set(_classes()) | {"check_choice", "shown"} == set(errors.__all__)


@pytest.mark.parametrize("kind", _classes().values(), ids=lambda k: k.__name__)
def test_errors_survive_a_process_boundary(kind: type[errors.RlaasError]) -> None:
    copy = pickle.loads(pickle.dumps(kind("wrong", field="x.y")))
    assert type(copy) is kind
    assert (copy.message, copy.field, str(copy)) == ("wrong", "x.y", "wrong")


def test_retryable_errors_say_so() -> None:
    retryable = {name for name, kind in _classes().items() if kind.retryable}
    assert retryable == {"RetryableError", "NotReadyError", "OverloadedError"}


def test_check_choice_names_the_choices() -> None:
    assert errors.check_choice("a", ["b", "a"], field="letter") == "a"
    with pytest.raises(errors.ConfigurationError, match="unknown letter 'c'; allowed: a, b") as caught:
        errors.check_choice("c", ["b", "a"], field="letter")
    assert caught.value.field == "letter"
