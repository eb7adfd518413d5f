"""Robust accuracy, with everything that it depends on, and the signs that it is not to be trusted."""

from tfapp.evaluation.robustness.measuring import evaluate_robustness as evaluate_robustness
from tfapp.evaluation.robustness.result import Robustness as Robustness
from tfapp.evaluation.robustness.settings import AttackSettings as AttackSettings
