"""Judges pictures from strangers in guarded child processes."""

from fusebus.validation.validator import ForkServer, Validator, ValidatorUnavailable
from fusebus.validation.verdicts import Cost, Facts, QualityNote, Verdict, explanation

__all__ = ["Cost", "Facts", "ForkServer", "QualityNote", "Validator", "ValidatorUnavailable", "Verdict", "explanation"]
