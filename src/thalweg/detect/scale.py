"""The scale of columns of numbers: centre and standard deviation that a few wild values do not move."""

import numpy

KNEE = 4.0  # standard deviations up to which an encoded number is linear
CHANGED = 1e-6  # change of a constant that counts as one standard deviation
ROUNDING = 1e-13  # relative differences below this are rounding errors
LARGEST, LEAST = 1e300, 1e-300


def compress(z: numpy.ndarray) -> numpy.ndarray:
    """z up to ±4, beyond ±(4 + asinh(|z| − 4)): monotone, with a continuous slope. Infinities become the value at 1e300."""
    size = numpy.minimum(numpy.abs(z), LARGEST)
    return numpy.where(size > KNEE, numpy.sign(z) * (KNEE + numpy.arcsinh(numpy.maximum(size - KNEE, 0.0))), z)


FAR = float(compress(numpy.array(1 / CHANGED)))  # where what could not be at fit is encoded, 18.5


def scales(columns: numpy.ndarray) -> tuple[numpy.ndarray, ...]:
    """Of columns [D, N], NaN where missing: centre, unit, median (a value that occurs), share of missing values, and which are constant.

    Centre and unit are mean and standard deviation of the values clipped to the range of their middle 90 %, widened by its width on either
    side: those of a Gaussian column are the plain ones within 1 %, and one wild value of N counts as one about 5 of these away. Where the
    middle 90 % are one value, the range is that of the others' median distance from it. A column that is constant, or is but for one value
    of at least 20, has 1e-6 as its unit where it is a whole number, else 1e-6 of it.
    """
    rows = columns.shape[1]
    ordered = numpy.sort(columns, 1)  # NaN last
    known = ~numpy.isnan(ordered)
    valid = known.sum(1)
    last = numpy.maximum(valid - 1, 0)

    def at(place: numpy.ndarray) -> numpy.ndarray:
        return numpy.where(valid > 0, numpy.take_along_axis(ordered, place[:, None], 1)[:, 0], 0.0)

    median = at(last // 2)
    low, high = at(numpy.ceil(0.05 * last).astype(int)), at(numpy.floor(0.95 * last).astype(int))
    constant = numpy.zeros(len(columns), dtype=bool)
    with numpy.errstate(over="ignore"):  # an infinite range clips nothing
        width = high - low
        spread = width > ROUNDING * numpy.maximum(abs(low), abs(high))
        low, high = low - width, high + width
        for i in numpy.flatnonzero(~spread & (valid > 0)):
            distance = numpy.abs(ordered[i, : valid[i]] - median[i])
            others = numpy.sort(distance[distance > ROUNDING * abs(median[i])])
            constant[i] = len(others) <= (valid[i] >= 20)
            reach = 3 * others[(len(others) - 1) // 2] if len(others) else 0.0
            low[i], high[i] = median[i] - reach, median[i] + reach
    clipped = numpy.where(known, numpy.clip(ordered, low[:, None], high[:, None]), 0.0)
    power = numpy.abs(clipped).max(1)
    power = numpy.where((power > 1e100) | (power < 1e-100) & (power > 0), power, 1.0)[:, None]  # keeps squares within floating point
    clipped /= power
    number = numpy.maximum(valid, 1)[:, None]
    centre = clipped.sum(1, keepdims=True) / number
    variance = numpy.where(known, (clipped - centre) ** 2, 0.0).sum(1, keepdims=True) / number
    centre, unit = (centre * power)[:, 0], (numpy.sqrt(variance) * power)[:, 0]
    whole = numpy.maximum(CHANGED, ROUNDING * abs(median))
    changed = numpy.where(median == numpy.round(median), whole, CHANGED * abs(median))
    centre, unit = numpy.where(constant, median, centre), numpy.where(constant, changed, unit)
    return centre, numpy.maximum(unit, LEAST), median, 1 - valid / rows, constant
