"""The policy and its rivals on virtual time."""

from fusebus.planning.simulation.run import POLICIES, Outcome, simulate
from fusebus.planning.simulation.scenario import Lump, Scenario
from fusebus.planning.simulation.scenarios import scenarios

__all__ = ["POLICIES", "Lump", "Outcome", "Scenario", "scenarios", "simulate"]
