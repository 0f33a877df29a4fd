"""Data contracts: what a topic's records must look like, and what becomes of those that do not."""

from engine.contracts.contract import Contract, Rule
from engine.contracts.limits import Limits, Violation

__all__ = ["Contract", "Limits", "Rule", "Violation"]
