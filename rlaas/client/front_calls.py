"""Calls about fronts and choices from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlaas.client.wire import Answer, Call, CallSender, encode, given, page, quoted

__all__ = ["FrontCalls"]


class FrontCalls(CallSender[Answer]):
    """What was found, and what is chosen from it."""

    def fronts(self, *, page_size: int = 1000, page_token: str | None = None) -> Answer:
        """Fronts that were found: ``items`` and ``next_page_token``."""
        return self._send(Call("GET", "/api/v1/fronts", query=page(page_size, page_token)))

    def front(self, scenario: str, *, label: str | None = None) -> Answer:
        """A front with its candidates and its ``version``; :meth:`rlaas.fronts.Front.from_dict` reads it.

        Args:
            scenario: name.
            label: ``champion``, ``candidate`` or that of a search; by default the first of these that there is.
        """
        return self._send(Call("GET", f"/api/v1/fronts/{quoted(scenario)}", query=given(label=label)))

    def resolve(self, scenario: str, **fields: Any) -> Answer:
        """The candidate of a front that fits best, with its certificate and the ``step`` that it came from.

        Args:
            scenario: name.
            **fields: ``mode`` or ``preference``, ``method``, ``rules`` and ``context``, ``label``, ``deadline_s``; None
                means left out.
        """
        return self._send(Call("POST", "/api/v1/resolve", encode({"scenario": scenario, **given(**fields)})))

    def elicit(
        self, scenario: str, answers: Sequence[str] = (), *, label: str | None = None, front_version: str | None = None
    ) -> Answer:
        """The next pairwise question about a front, or once ``done`` the ``preference`` that the answers amount to.

        Args:
            scenario: name.
            answers: ``a``, ``b`` or ``equal`` for each question so far.
            label: of the front.
            front_version: that the answers are about; :class:`rlaas.errors.ConflictError` if it is no longer that one.
        """
        document = {"answers": list(answers), **given(label=label, front_version=front_version)}
        return self._send(Call("POST", f"/api/v1/fronts/{quoted(scenario)}/elicit", encode(document)))
