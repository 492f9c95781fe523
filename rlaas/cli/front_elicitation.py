"""``rlaas fronts ask``: a person's weights by pairwise questions in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from rlaas.cli.front_source import FrontOption, LabelOption, PolicyOption, ScenarioArgument, find_front
from rlaas.cli.output import JsonOption, print_json, print_lines, stderr
from rlaas.errors import ConflictError, InvalidInputError

if TYPE_CHECKING:
    from rlaas.decisions.elicitation import Answer, Elicitation

__all__ = ["ask"]

UNDO, QUIT = "undo", "quit"


def ask(
    scenario: ScenarioArgument = None,
    front: FrontOption = None,
    policy: PolicyOption = None,
    label: LabelOption = None,
    answers: Annotated[
        str | None,
        typer.Option(
            help="Answers instead of a dialogue: a, b or e (equal) for each question, as aab; more are left over."
        ),
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Goodness that the recommendation may lack.")] = 0.01,
    seed: Annotated[int, typer.Option(min=0, help="Of the sample by which questions are chosen.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Ask which of two candidates is better until the weights are known well enough."""
    from rlaas.decisions.elicitation import Elicitation

    given = None if answers is None else list(_parsed(answers))
    subject = find_front(scenario, file=front, policy=policy, label=label)
    state = Elicitation(subject.front, tolerance=tolerance, seed=seed)
    state = _dialogue(state) if given is None else _answered(state, given)
    if as_json:
        print_json({**state.summary(), "front_version": subject.front.version, "state": state.to_dict()})
        return
    _print(state, "" if front is None else f" --front {front}")


def _answered(state: Elicitation, answers: list[Answer]) -> Elicitation:
    """The state after as many of the answers as there are questions; says on stderr where some are left over."""
    for used, answer in enumerate(answers):
        if state.done:
            _say(f"note: {used} of {len(answers)} answers were used; then nothing was left to ask")
            break
        state = state.answer(answer)
    return state


def _parsed(text: str) -> Iterator[Answer]:
    letters: dict[str, Answer] = {answer[0]: answer for answer in _answers()}
    for letter in text:
        if letter not in letters:
            raise InvalidInputError(
                f"--answers {text[:80]!r} holds {letter!r}; allowed: a, b and e (equal), one for each question",
                field="answers",
            )
        yield letters[letter]


def _answers() -> tuple[Answer, ...]:
    from rlaas.decisions.elicitation import Answer

    found: tuple[Answer, ...] = get_args(Answer)
    return found


def _dialogue(state: Elicitation) -> Elicitation:
    """Ask until nothing is left to ask, or nobody answers any more. Speaks on stderr: stdout is for the result."""
    words = {word: answer for answer in _answers() for word in (answer, answer[0])}
    while (question := state.question()) is not None:
        _say(f"{len(state.answers) + 1}. {question.text}")
        _say(f"  [a] [b] [e]qual [u]ndo [q]uit ({100 * state.remaining:.3g} % of all weights are left): ", end="")
        line = sys.stdin.readline()
        word = line.strip().lower()
        if not line or word in (QUIT, QUIT[0]):
            _say("")
            break
        if word in (UNDO, UNDO[0]):
            state = state.undo() if state.answers else state
        elif word in words:
            try:
                state = state.answer(words[word])
            except ConflictError as problem:  # the state is as it was: the person may answer otherwise, or undo
                _say(problem.message)
        else:
            _say("allowed: a, b, equal, undo, quit")
    return state


def _say(text: str, end: str = "\n") -> None:
    console = stderr()
    console.print(text, end=end, markup=False, highlight=False, soft_wrap=not console.is_terminal)


def _print(state: Elicitation, source: str) -> None:
    weights = ",".join(f"{name}={weight:.3g}" for name, weight in state.result().to_dict().items())
    possible = [candidate.name for candidate in state.possible]
    typer.echo(f"recommended: {state.recommended.name}, which lacks at most {state.max_regret:.3g} goodness")
    typer.echo(f"weights: {weights} (the middle of {100 * state.remaining:.3g} % of all weights)")
    if len(possible) > 1:
        print_lines([f"still possible: {', '.join(possible)}"])
    question = state.question()
    if question is not None:
        print_lines([f"next question: {question.text}"])
    typer.echo(f"resolve with: rlaas resolve {state.front.scenario}{source} --method weighted_sum --weights {weights}")
