"""Procedural categories in canonical pose: a chair or a car by its number, as parts in colour and the factors that made it."""

from collections.abc import Callable

from .parts import RGB, Draws, Part, beam, box, disc, extrusion

FLOOR = -0.72  # on which chairs stand
ROAD = -0.3  # on which cars stand
BLACK, GLASS, SILVER = (0.13, 0.13, 0.14), (0.2, 0.26, 0.33), (0.62, 0.63, 0.65)
LAMP, REAR_LAMP, SIGN = (1.0, 0.95, 0.6), (0.9, 0.08, 0.08), (1.0, 0.85, 0.2)
SIDES = (-1, 1)  # of y: right, left


def chair(number: int) -> tuple[list[Part], Draws]:
    """A chair that looks towards x: legs, seat, back and arms of several kinds; a single arm has a tablet to write on."""
    f = Draws(number, 41)
    half, deep = f.number("width", 0.54, 0.8) / 2, f.number("depth", 0.54, 0.76) / 2
    seat = FLOOR + f.number("seat_height", 0.42, 0.74)
    back = f.number("back_height", 0.44, 0.74)
    lean = f.number("lean", 0.0, 0.25) * back  # how much further back its top is
    thick = f.number("thickness", 0.06, 0.12)
    splay = f.number("splay", 0.0, 0.08)
    legs = f.choice("legs", ("four", "pedestal", "sled", "panels"))
    kind = f.choice("back", ("panel", "spindles", "ladder", "half"))
    shape = f.choice("seat", ("square", "round", "cushion"))
    arms = f.choice("arms", ("none", "none", "both", "left", "right"))
    colours = f.choice("colours", ("one", "two", "three"))
    main, frame, rest = f.colour("colour"), f.colour("frame_colour"), f.colour("back_colour")
    if colours == "one":
        frame = f.same("frame_colour", "colour")
    if colours != "three":
        rest = f.same("back_colour", "colour")
    if shape == "round":
        parts = [disc((0.0, 0.0, seat - 0.08), (deep, half), 0.08, main, sides=16, power=3.5)]
        half, reach = 0.8 * half, 0.8 * deep  # what is fixed to it stays under it
    else:
        parts, reach = [box((-deep, -half, seat - 0.08), (deep, half, seat), main)], deep
    if shape == "cushion":
        parts.append(box((-deep + 0.06, -half + 0.05, seat), (deep - 0.02, half - 0.05, seat + 0.08), rest, top=(0.9, 0.9)))
    parts += _legs(legs, half, reach, seat - 0.06, thick, splay, frame)
    return parts + _back(kind, half, deep, seat, back, lean, thick, frame, rest) + _arms(arms, half, deep, seat, thick, frame), f


def _legs(kind: str, half: float, deep: float, top: float, thick: float, splay: float, colour: RGB) -> list[Part]:
    x, y, foot = deep - thick / 2, half - thick / 2, FLOOR + thick / 2
    if kind == "panels":
        return [box((-deep, j * y - thick / 2, FLOOR), (deep, j * y + thick / 2, top), colour) for j in SIDES]
    if kind == "pedestal":
        radius, start = 0.6 * thick + 0.02, (0.0, 0.0, FLOOR + 0.08)
        ends = [(i * deep, 0.0, FLOOR + 0.03) for i in SIDES] + [(0.0, j * half, FLOOR + 0.03) for j in SIDES]
        feet = [beam(start, end, (0.08, 0.09), colour) for end in ends]
        return [disc((0.0, 0.0, FLOOR + 0.06), (radius, radius), top - FLOOR - 0.06, colour, sides=8), *feet]
    if kind == "sled":
        uprights = [beam((i * x, j * y, top), (i * x, j * y, FLOOR), (thick, thick), colour) for i in SIDES for j in SIDES]
        return [*uprights, *(beam((-deep, j * y, foot), (deep, j * y, foot), (thick, thick), colour) for j in SIDES)]
    ends = [(i, j, (i * (x + splay), j * (y + splay), FLOOR)) for i in SIDES for j in SIDES]
    return [beam((i * x, j * y, top), end, (thick, thick), colour, tip=0.7) for i, j, end in ends]


def _back(kind: str, half: float, deep: float, seat: float, back: float, lean: float, thick: float, frame: RGB, colour: RGB) -> list[Part]:
    """From the seat to `back` above it, leaning away from x = −deep."""

    def slab(low: float, high: float, right: float, left: float, of: RGB) -> Part:
        """Of the back from `low` to `high`, in shares of its height, between two y."""
        (x0, z0), (x1, z1) = ((-deep - lean * share, seat + back * share) for share in (low, high))
        return extrusion([(x0, z0), (x0 + 0.07, z0), (x1 + 0.07, z1), (x1, z1)], right, left, of)

    if kind == "panel":
        return [slab(-0.08, 1, -half, half, colour)]
    posts = [slab(-0.08, 1, -half, -half + thick, frame), slab(-0.08, 1, half - thick, half, frame)]
    if kind == "half":
        return [*posts, slab(0.45, 0.97, -half, half, colour)]
    if kind == "ladder":
        return [*posts, *(slab(low, low + 0.16, -half, half, colour) for low in (0.2, 0.5, 0.8))]
    gap = (2 * half - thick) / 4
    return [*posts, slab(0.84, 1, -half, half, colour), *(slab(0, 0.9, i * gap - 0.025, i * gap + 0.025, colour) for i in (-1, 0, 1))]


def _arms(kind: str, half: float, deep: float, seat: float, thick: float, colour: RGB) -> list[Part]:
    found, high = [], seat + 0.26
    for j, name in zip(SIDES, ("right", "left")):
        if kind in ("both", name):
            x, y = deep - 0.12, j * (half - thick / 2)
            found.append(beam((x, y, seat - 0.05), (x, y, high), (thick, thick), colour))
            found.append(beam((-deep, y, high), (deep - 0.06, y, high), (0.07, thick + 0.03), colour))
        if kind == name:
            low, top = sorted((0.25 * y, y))
            found.append(box((-0.1, low, high + 0.02), (deep + 0.06, top, high + 0.07), colour))
    return found


def car(number: int) -> tuple[list[Part], Draws]:
    """A car that drives towards x: six bodies in one or two colours; a door may have the second on one side."""
    f = Draws(number, 42)
    body = f.choice("body", ("sedan", "hatchback", "estate", "van", "pickup", "coupe"))
    long, half = f.number("length", 1.3, 1.7), f.number("width", 0.6, 0.76) / 2
    tall = f.number("height", 0.9, 1.15)  # of its body's
    wheel = f.number("wheels", 0.12, 0.165)  # radius
    low = ROAD + f.number("clearance", 0.06, 0.14)
    rake = f.number("rake", 0.06, 0.16)  # how much further back the top of the windscreen is
    bonnet = f.number("bonnet", -0.04, 0.04) * long  # more of it than its body has
    roof = f.choice("roof", ("first", "first", "second"))
    door = f.choice("door", ("none", "none", "left", "right"))
    stripe = f.choice("stripe", ("no", "no", "yes"))
    above = f.choice("top", ("nothing", "nothing", "rack", "sign"))
    paint, second = f.colour("colour"), f.colour("second_colour")
    if (roof, door, stripe) == ("first", "none", "no"):
        f.same("second_colour", "colour")

    front, rear, belt = long / 2, -long / 2, low + 0.23 * tall
    high = belt + {"van": 0.32, "estate": 0.22, "coupe": 0.16}.get(body, 0.21) * tall
    # where the windows begin and end at the belt, in lengths from the front, and how much the rear one leans
    start, end, slope = {
        "sedan": (0.27, 0.82, 0.14), "hatchback": (0.26, 0.99, 0.16), "estate": (0.27, 0.99, 0.04), "van": (0.12, 0.99, 0.01),
        "pickup": (0.25, 0.6, 0.03), "coupe": (0.36, 0.92, 0.28),
    }[body]  # fmt: skip
    ahead, behind = front - start * long - bonnet, front - end * long
    first, last = ahead - rake, behind + slope  # of the roof

    parts = _shell(body, front, rear, ahead, behind, low, belt, half, paint) + _wheels(front, rear, wheel, half)
    windows = [(behind, belt), (ahead, belt), (first, high), (last, high)]
    parts.append(extrusion(windows, 0.02 - half, half - 0.02, GLASS, taper=(1, 1, 0.85, 0.85)))
    between = first - 0.26  # the windows of a side; a van has none behind that
    post = [behind, between] if body == "van" else [between - 0.03, between + 0.03]
    if post[0] > last or body == "van":
        pillar = [(post[0], belt), (post[1], belt), (post[1], high), (post[0], high)]
        parts.append(extrusion(pillar, 0.01 - half, half - 0.01, paint, taper=(1, 1, 0.86, 0.86)))
    cover = second if roof == "second" else paint
    parts.append(box((last - 0.02, -0.86 * half, high), (first + 0.03, 0.86 * half, high + 0.035), cover, top=(0.95, 0.9)))

    for j in SIDES:
        right, left = sorted((0.55 * j * half, 0.95 * j * half))
        parts.append(box((front - 0.02, right, belt - 0.13), (front + 0.015, left, belt - 0.05), LAMP))
        parts.append(box((rear - 0.015, right, belt - 0.13), (rear + 0.02, left, belt - 0.04), REAR_LAMP))
    parts.append(box((front - 0.02, -0.45 * half, belt - 0.14), (front + 0.012, 0.45 * half, belt - 0.06), BLACK))
    if door != "none":
        right, left = sorted({"left": 1, "right": -1}[door] * (half + away) for away in (-0.01, 0.012))
        middle = max((ahead + behind) / 2, ahead - 0.31)
        parts.append(box((middle - 0.17, right, low + 0.02), (middle + 0.17, left, belt), second))
    if stripe == "yes":
        parts.append(box((ahead, -0.09, belt - 0.02), (front - 0.01, 0.09, belt + 0.012), second))
        parts.append(box((last, -0.08, high), (first + 0.01, 0.08, high + 0.048), second))
    if above == "sign":
        middle = (first + last) / 2
        parts.append(box((middle - 0.05, -0.13, high + 0.03), (middle + 0.05, 0.13, high + 0.13), SIGN))
    if above == "rack":
        parts += [box((last, y - 0.03, high + 0.03), (first, y + 0.03, high + 0.09), BLACK) for y in (-0.2, 0.2)]
    return parts, f


def _shell(
    body: str, front: float, rear: float, ahead: float, behind: float, low: float, belt: float, half: float, paint: RGB
) -> list[Part]:
    """The painted body below the windows: its bonnet falls to the front, a pickup is open behind them."""
    nose = [(front - 0.05, low), (front, low + 0.05), (front - 0.01, belt - 0.05), (ahead, belt)]
    narrow = (0.95, 0.92, 0.92, 1)
    if body != "pickup":
        profile = [(rear, belt), (rear, low + 0.04), (rear + 0.06, low), *nose]
        return [extrusion(profile, -half, half, paint, taper=(0.97, 1, 0.95, *narrow))]
    bed = low + 0.1
    return [
        extrusion([(behind, belt), (behind, low), *nose], -half, half, paint, taper=(1, 1, *narrow)),
        *(box((rear, j * (half - 0.025) - 0.025, bed), (behind, j * (half - 0.025) + 0.025, belt), paint) for j in SIDES),
        box((rear, -half, bed), (rear + 0.05, half, belt), paint),
        box((rear, -half, low), (behind, half, bed), paint),
        box((rear + 0.05, -half + 0.05, bed), (behind, half - 0.05, bed + 0.01), BLACK),
    ]


def _wheels(front: float, rear: float, radius: float, half: float) -> list[Part]:
    found = []
    for x in (front - 0.19 * (front - rear), rear + 0.19 * (front - rear)):
        for j in SIDES:
            centre, hub = (x, j * (half - 0.1), ROAD + radius), 0.5 * radius
            found.append(disc(centre, (radius, radius), j * 0.13, BLACK, axis=1))
            found.append(disc(centre, (hub, hub), j * 0.145, SILVER, axis=1, sides=8))
    return found


CATEGORIES: dict[str, Callable[[int], tuple[list[Part], Draws]]] = {"chairs": chair, "cars": car}
