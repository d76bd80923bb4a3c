"""From judged solutions to the audit: every figure that the reports show, and the verdict in words."""

import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..aggregate import AGGREGATES
from ..mdp import Usage
from . import metrics
from .judge import Judged, Judgement
from .metrics import Area, Calibration, FirstError, Pair
from .selection import Mean, Pool, any_of, best_of, choose_apart, mean, orders_of, paired_test, vote
