"""Objectives that perturb in whole training runs: every phase, both forward passes, resumption, two devices."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tfapp.errors import ConfigError
from tfapp.objectives import OBJECTIVES, make_objective

PERTURBING = [name for name, make in OBJECTIVES.items() if getattr(make, "perturbs", False)]
