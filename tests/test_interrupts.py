"""An interrupt that a library swallowed comes back at the next check."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from rlaas.interrupts import check_interrupt, handle_interrupts


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    handle_interrupts()
    yield
    handle_interrupts()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_swallowed_interrupt_is_raised_again(number: signal.Signals) -> None:
    check_interrupt()
    swallowed = False
    try:
        os.kill(os.getpid(), number)
    except BaseException:  # as some libraries do around optional imports
        swallowed = True
    assert swallowed
    with pytest.raises(KeyboardInterrupt):
        check_interrupt()
    handle_interrupts()
    check_interrupt()
