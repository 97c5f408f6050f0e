"""The divergence guard: notices a training run that is running away, and decides how far to go back and how to go on."""

import math
from typing import Any

from thalweg.errors import Diverged

# Released logs that end in a blow-up pass 1e5 long before they are NaN; a healthy energy gap stays far below.
ENERGY_LIMIT = 1e5
# Energies that wander are finite for long: in runs that went well the means stayed below 70 nats, in one that was lost they passed 9,600.
# Astray are means of 1,000 nats and more that are also 30 times what was usual, or 10 nats for each number of an example.
ASTRAY, ASTRAY_FACTOR, ASTRAY_EACH, ASTRAY_PATIENCE = 1e3, 30.0, 10.0, 3
NORM_FACTOR = 1e3
NORM_PATIENCE = 3
WARM_UP = 50


class Guard:
    """Checks every update; after a divergence the run goes back to a good state and continues with half the learning rate.

    A state is good when a later checkpoint was reached from it. A run that diverges again before it gets beyond the point
    of the last divergence goes one state further back. After `tries` such failures in a row, or ten times as many in the whole
    run, it stops.
    """

    def __init__(self, tries: int = 5, dimensions: int = 1) -> None:
        self.tries, self.dimensions = tries, dimensions  # numbers of an example
        self.rate_scale = 1.0
        self.failures = 0  # in a row, without getting beyond `worst`
        self.worst = 0
        self.total = 0  # in the whole run
        self._log_norm: dict[str, float] = {}
        self._seen: dict[str, int] = {}
        self._high: dict[str, int] = {}
        self._log_energy: dict[str, float] = {}
        self._astray: dict[str, int] = {}

    @property
    def depth(self) -> int:
        """How many of the newest states to pass over when going back."""
        return max(0, self.failures - 1)

    def check(self, name: str, loss: float, norm: float) -> None:
        """Raise Diverged for a loss or gradient norm that is not finite, or runs away from what was usual for this update."""
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise Diverged(f"update '{name}': loss {loss:.3g}, gradient norm {norm:.3g}")
        if abs(loss) > ENERGY_LIMIT:
            raise Diverged(f"update '{name}': loss {loss:.3g} is beyond ±{ENERGY_LIMIT:.0e}")
        log_norm = math.log(norm + 1e-12)
        usual = self._log_norm.get(name, log_norm)
        high = self._seen.get(name, 0) >= WARM_UP and log_norm > usual + math.log(NORM_FACTOR)
        self._high[name] = self._high.get(name, 0) + 1 if high else 0
        if self._high[name] >= NORM_PATIENCE:
            raise Diverged(f"update '{name}': gradient norm {norm:.3g} is {math.exp(log_norm - usual):.0f} times what was usual")
        self._log_norm[name] = usual + 0.02 * (log_norm - usual)
        self._seen[name] = self._seen.get(name, 0) + 1

    def check_energies(self, values: dict[str, float]) -> None:
        """Raise Diverged where a watched mean energy is not finite, beyond the limit, or astray for several looks in a row."""
        for name, value in values.items():
            if not math.isfinite(value) or abs(value) > ENERGY_LIMIT:
                raise Diverged(f"{name} = {value:.3g} is beyond ±{ENERGY_LIMIT:.0e}")
            size = math.log(max(1.0, abs(value)))
            usual = self._log_energy.get(name, size)
            bound = max(ASTRAY, min(ASTRAY_FACTOR * math.exp(usual), ASTRAY_EACH * self.dimensions))
            self._astray[name] = self._astray.get(name, 0) + 1 if abs(value) > bound else 0
            if self._astray[name] >= ASTRAY_PATIENCE:
                raise Diverged(f"{name} = {value:.3g}, and beyond ±{bound:.3g} for {ASTRAY_PATIENCE} looks in a row: it has gone astray")
            if not self._astray[name]:
                self._log_energy[name] = usual + 0.02 * (size - usual)

    def react(self, trouble: str, images: int) -> str:
        """Count a divergence at `images` and lower the learning rate; returns what was decided, raises when the tries are used up."""
        self.failures = self.failures + 1 if images <= self.worst or not self.failures else 1
        self.worst = max(self.worst, images)
        self.total += 1
        spent = None
        if self.failures > self.tries:
            spent = f"{self.tries} tries"
        elif self.total > 10 * self.tries:
            spent = f"{10 * self.tries} tries in the whole run"
        if spent:
            raise Diverged(f"gave up after {spent}: {trouble} at {images} images. Lower the learning rate or add chain steps.")
        self.rate_scale *= 0.5
        self._high, self._astray = {}, {}
        return f"diverged at {images} images ({trouble}); try {self.failures} of {self.tries}, learning rate × {self.rate_scale:g}"

    def passed(self, images: int) -> None:
        """A checkpoint at `images` was reached: beyond the worst point the count starts anew."""
        if images > self.worst:
            self.failures = 0

    def state(self) -> dict[str, Any]:
        return {
            key: (dict(value) if isinstance(value, dict) else value)
            for key, value in vars(self).items()
            if key not in ("tries", "dimensions")
        }

    def load(self, state: dict[str, Any]) -> None:
        vars(self).update({key: (dict(value) if isinstance(value, dict) else value) for key, value in state.items()})
