"""Test agents without a broker: the true engine, with its edges in memory."""

from engine.testing.driver import Delivered, Driver

__all__ = ["Delivered", "Driver"]
