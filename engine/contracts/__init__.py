"""Data contracts: what a topic's records must look like, and what becomes of those that do not."""

from engine.contracts.contract import Contract, Rule, Violation

__all__ = ["Contract", "Rule", "Violation"]
