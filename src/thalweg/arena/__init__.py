"""Methods compared at equal price: each is trained for so many seconds on the same data and measured in the same way, at several seeds.

rows = tw.compare([name, "my_method.py:MyMethod"], "moons", out="runs/compared", seconds=60, seeds=3)

The price is CPU seconds of one thread, on a GPU seconds. How many images a model sees for it follows from the time of its first steps
(`thalweg.arena.price`), so that its learning rate ends with its training. `thalweg compare` is this function.
"""

from thalweg.arena.compare import compare
from thalweg.arena.entrants import Entrant, entrants
from thalweg.arena.row import Plan
from thalweg.arena.table import summary

__all__ = ["Entrant", "Plan", "compare", "entrants", "summary"]
