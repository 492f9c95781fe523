"""The A3 event on made-up signals: entering, timer, leaving, ping-pong, failure, eviction."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rlaas.scenarios.network5g.handover import Attachment
from rlaas.scenarios.network5g.reference import reference

RULE = replace(reference().handover, filter_sample_s=0.1, filter_k=0)  # no filter: F = M


def power(first, second):
    return np.array([[[first, second]]], dtype=np.float32)


def run(signals, *, rule=RULE, offset=3.0, cell_offset=(0.0, 0.0), off=(False, False), attachment=None):
    attachment = attachment or Attachment.start(power(-80.0, -95.0))
    moments = []
    for t, (first, second) in enumerate(signals):
        events = attachment.update(
            power(first, second),
            np.array([cell_offset], dtype=np.float32),
            np.full((1, 2), offset, dtype=np.float32),
            np.array([off]),
            rule,
        )
        moments += [(t, events)] if events.handover.any() else []
    return attachment, moments


def test_the_test_rule_has_no_filter():
    assert RULE.filter_share == pytest.approx(1.0)


def test_handover_after_the_time_to_trigger():
    # The margin jumps at step 1: the condition holds from between steps 0 and 1, so 256 ms are over at step 4.
    attachment, moments = run([(-80, -95)] + [(-80, -75)] * 6)
    assert [t for t, _ in moments] == [4]
    assert attachment.serving[0, 0] == 1


def test_no_handover_below_the_offset_or_before_the_timer():
    assert run([(-80, -77.5)] * 20)[1] == []
    assert run([(-80, -95), (-80, -75), (-80, -75), (-80, -95)] * 5)[1] == []


def test_the_crossing_is_interpolated():
    # -1 dB to +9 dB: crossed a tenth into the interval, so 290 ms have passed two steps later; 9 to 1: only 210 ms.
    early = run([(-80, -78.0), (-80, -68.0), (-80, -68.0), (-80, -68.0)])[1]
    late = run([(-80, -86.0), (-80, -76.0), (-80, -76.0), (-80, -76.0)])[1]
    assert [t for t, _ in early] == [3]
    assert late == []


def test_hysteresis_delays_entering_and_leaving():
    rule = replace(RULE, hysteresis_db=2.0)
    assert run([(-80, -95)] + [(-80, -76)] * 10, rule=rule)[1] == []
    # Entered at +6 dB, it stays entered while it dips to +2 dB: leaving needs less than +1 dB.
    dips = [(-80, -95), (-80, -74), (-80, -78), (-80, -78), (-80, -78), (-80, -78)]
    assert [t for t, _ in run(dips, rule=rule)[1]] == [4]


def test_cell_offset_moves_the_border():
    assert len(run([(-80, -95)] + [(-80, -79)] * 6, cell_offset=(0.0, 4.0))[1]) == 1
    assert run([(-80, -95)] + [(-80, -75)] * 6, cell_offset=(4.0, 0.0))[1] == []


def test_ping_pong_is_a_return_within_a_second():
    there_and_back = [(-80, -95)] + [(-80, -70)] * 4 + [(-70, -80)] * 5
    moments = run(there_and_back)[1]
    assert [bool(e.ping_pong[0, 0]) for _, e in moments] == [False, True]
    slow = [(-80, -95)] + [(-80, -70)] * 14 + [(-70, -80)] * 5
    assert [bool(e.ping_pong[0, 0]) for _, e in run(slow)[1]] == [False, False]


def test_a_sleeping_cell_sends_its_users_away_at_once():
    attachment, moments = run([(-80, -95)], off=(True, False))
    assert [t for t, _ in moments] == [0]
    assert attachment.serving[0, 0] == 1
    attachment, moments = run([(-80, -95)], off=(True, True))
    assert moments == []


def test_link_failure_after_a_second_below_the_threshold():
    attachment = Attachment.start(power(-80.0, -95.0))
    failed = []
    for t in range(25):
        _, _ = run([(-80, -78.5)], attachment=attachment)
        failed.append(bool(attachment.weak[0, 0] >= RULE.failure_s - 1e-9))
        attachment.watch(np.array([[-9.0 if t < 10 else 0.0]]), RULE)
    assert not any(failed)  # a single good sample stops the timer
    attachment = Attachment.start(power(-80.0, -95.0))
    moved = []
    for _ in range(12):
        _, moments = run([(-80, -78.5)], attachment=attachment)
        moved += [bool(e.failure[0, 0]) for _, e in moments]
        attachment.watch(np.array([[-9.0]]), RULE)
    assert moved == [True]
    assert attachment.serving[0, 0] == 1
