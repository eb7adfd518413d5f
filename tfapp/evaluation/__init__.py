"""How good a model is: scores with intervals, calibration, and a report that people can read."""

from tfapp.evaluation.calibration import fit_temperature as fit_temperature
from tfapp.evaluation.evaluate import evaluate as evaluate
from tfapp.evaluation.evaluate import evaluate_logits as evaluate_logits
from tfapp.evaluation.ledger import TransferLedger as TransferLedger
from tfapp.evaluation.ledger_runs import transfer_ledger as transfer_ledger
from tfapp.evaluation.metrics import Interval as Interval
from tfapp.evaluation.report import Evaluation as Evaluation
from tfapp.evaluation.robustness import AttackSettings as AttackSettings
from tfapp.evaluation.robustness import Robustness as Robustness
from tfapp.evaluation.robustness import evaluate_corruptions as evaluate_corruptions
from tfapp.evaluation.robustness import evaluate_robustness as evaluate_robustness
from tfapp.evaluation.robustness import robustness_curve as robustness_curve
from tfapp.evaluation.teacher import what_it_cost as what_it_cost
