"""Preference elicitation: pairwise questions that shrink the region of a person's weights."""

from rlaas.decisions.elicitation.answers import ANSWERS, Answer, Comparison, Question
from rlaas.decisions.elicitation.session import Elicitation

__all__ = ["ANSWERS", "Answer", "Comparison", "Elicitation", "Question"]
