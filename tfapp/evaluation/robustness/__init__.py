"""Robust accuracy, with everything that it depends on, and the signs that it is not to be trusted."""

from tfapp.evaluation.robustness.corrupted import CorruptionAccuracy as CorruptionAccuracy
from tfapp.evaluation.robustness.corrupted import evaluate_corruptions as evaluate_corruptions
from tfapp.evaluation.robustness.curve import RobustnessCurve as RobustnessCurve
from tfapp.evaluation.robustness.curve import robustness_curve as robustness_curve
from tfapp.evaluation.robustness.measuring import evaluate_robustness as evaluate_robustness
from tfapp.evaluation.robustness.result import Robustness as Robustness
from tfapp.evaluation.robustness.settings import AttackSettings as AttackSettings
