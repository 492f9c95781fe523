"""How well resolutions did: regret against the best known later, rules that took effect, changes, steps."""

from rlaas.decisions.effectiveness.figures import Effectiveness, effectiveness
from rlaas.decisions.effectiveness.records import Resolution, Settlement, settle

__all__ = ["Effectiveness", "Resolution", "Settlement", "effectiveness", "settle"]
