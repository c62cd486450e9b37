"""The words of the prompts: verbs, directions and paces of a camera, and the things in front of it."""

from __future__ import annotations

Action = tuple[str, str]
"""A verb phrase in its plain form, and the direction that follows it (or none)."""


def _listed(text: str) -> list[str]:
    """The phrases between the commas."""
    return [phrase.strip().replace("\n", " ") for phrase in text.split(",")]


def _words(text: str) -> list[str]:
    return text.split()


SUBJECTS = (
    *(["the camera"] * 8),
    *("the view", "the shot", "camera", "a camera", "the frame", "the lens", "our view", "the cam"),
    *("the viewpoint", "the handheld camera", "the drone camera", "the whole shot"),
)
#: Verbs that are a camera's without naming one.
BARE_VERBS = frozenset(
    _words("""pan track truck tilt crane pedestal boom zoom dolly push rotate roll
spin hold stay keep remain move""")
) | {"push in", "pull back", "pull out", "hold still", "stay still", "keep still", "remain still"}

#: Verbs of which the camera can be the object ("move the camera left").
TRANSITIVE_VERBS = frozenset(
    _words("pan tilt move slide push pull rotate turn roll spin zoom dolly hold keep swing")
)

_SIDEWAYS = """pan pan pan track truck slide drift move move sweep glide scroll swing
travel shift float turn go look"""
_VERTICAL = """tilt tilt tilt pan move move glide drift slide float crane pedestal boom
go travel sweep swing look scroll"""


def _sideways(way: str) -> list[str]:
    start = "left" if way == "right" else "right"
    ways = [
        way,
        way,
        way,
        f"to the {way}",
        f"to the {way}",
        f"{way}wards",
        f"{way}ward",
        f"towards the {way}",
    ]
    ways += [f"toward the {way}", f"from {start} to {way}", f"from the {start} to the {way}"]
    return [*ways, f"over to the {way}", f"to the {way} side", f"off to the {way}"]


def _vertical(way: str) -> list[str]:
    ends = {"up": ("bottom", "top", "sky"), "down": ("top", "bottom", "ground")}[way]
    ways = [way, way, way, f"{way}wards", f"{way}ward", f"from {ends[0]} to {ends[1]}"]
    return [*ways, f"to the {ends[1]}", f"towards the {ends[2]}", f"straight {way}"]


def _pairs(text: str) -> list[Action]:
    """``verb/direction`` pairs, split at commas."""
    pairs = (phrase.partition("/") for phrase in _listed(text))
    return [(verb, where) for verb, _, where in pairs]


def _crossed(verbs: str, ways: list[str]) -> list[Action]:
    return [(verb, way) for verb in verbs.split() for way in ways]


_CLOCKWISE = ["clockwise", "clockwise", "in a clockwise direction"]
_COUNTER = ["counterclockwise", "anticlockwise", "counter-clockwise", "anti-clockwise", "counter clockwise"]
_COUNTER += ["in a counterclockwise direction", "in an anticlockwise direction"]
_RISE = """rise/, rise/up, rise/upwards, ascend/, climb/, climb/up, lift/up, lift/,
lift off/, rise/into the air"""
_SINK = """descend/, descend/downwards, sink/, sink/down, lower/, lower/down,
drop/, drop/down, fall/, come/down"""
_NEARER = """zoom/in, zoom/in, zoom/in, zoom/in, zoom/inwards, zoom/closer,
zoom/towards the subject, push/in, push/in, push/closer, push/forward, dolly/in, dolly/in, dolly/forward,
move/in, move/closer, move/closer, move/forward, move/forwards, move/inwards, move/nearer, move/towards
the subject, get/closer, go/closer, come/closer, go/forward, close/in, draw/closer, draw/nearer, track/in,
track/forward, glide/forward, glide/in, travel/forward, drift/forward, drift/closer, fly/forward,
approach/, approach/the subject, step/closer, pan/in, walk/forward, go/in, float/forward, slide/in,
come/in"""
_FARTHER = """zoom/out, zoom/out, zoom/out, zoom/out, zoom/back, zoom/outwards,
zoom/away, pull/back, pull/back, pull/out, pull/away, back/off, back/away, back/up, dolly/out, dolly/out,
dolly/back, dolly/backwards, dolly/away, move/back, move/backwards, move/backward, move/away, move/further
away, move/out, move/away from the subject, track/back, track/out, glide/back, glide/away, draw/back,
draw/away, retreat/, recede/, withdraw/, step/back, drift/back, drift/away, fly/backwards,
travel/backwards, pan/out, go/back, get/further away, go/out, widen/, float/away, slide/back,
walk/backwards"""
_STILL = """hold still/, hold/still, hold/steady, hold/its position, stay still/,
stay/still, stay/fixed, stay/put, stay/in place, remain still/, remain/static, remain/fixed,
remain/motionless, keep still/, keep/still, keep/steady, stand/still, stay/static, remain/stationary,
stay/completely still, rest/in one place, stay/where it is"""

ACTIONS: dict[str, list[Action]] = {
    "left": _crossed(_SIDEWAYS, _sideways("left")),
    "right": _crossed(_SIDEWAYS, _sideways("right")),
    "up": _crossed(_VERTICAL, _vertical("up")) + _pairs(_RISE) * 5,
    "down": _crossed(_VERTICAL, _vertical("down")) + _pairs(_SINK) * 5,
    "in": _pairs(_NEARER),
    "out": _pairs(_FARTHER),
    "clockwise": _crossed("rotate rotate roll turn spin twist revolve", ["", *_CLOCKWISE])
    + _pairs("rotate/, rotate/, roll/, spin/, turn/, tilt/clockwise"),
    "counterclockwise": _crossed("rotate rotate roll turn spin twist revolve tilt", _COUNTER),
    "still": _pairs(_STILL),
}
#: Verbs that say the pace themselves.
PACED_ACTIONS: dict[tuple[str, str], list[Action]] = {
    ("in", "slow"): _pairs(
        """creep/in, creep/forward, creep/closer, inch/forward, inch/closer,
ease/in, crawl/forward"""
    ),
    ("out", "slow"): _pairs(
        """creep/back, inch/back, inch/backwards, ease/out, ease/back,
crawl/backwards, creep/away"""
    ),
    ("in", "quick"): _pairs(
        """rush/in, rush/forward, race/forward, dash/in, snap-zoom/in,
crash-zoom/in, dart/forward"""
    ),
    ("out", "quick"): _pairs(
        """rush/back, rush/away, race/back, dash/away, snap-zoom/out,
crash-zoom/out, dart/back"""
    ),
}
for _way in ("left", "right", "up", "down"):
    _ways = _sideways(_way) if _way in ("left", "right") else _vertical(_way)
    PACED_ACTIONS[(_way, "slow")] = _crossed("creep inch ease crawl", _ways)
    PACED_ACTIONS[(_way, "quick")] = [
        *_crossed("whip race rush dart", _ways),
        *[("whip-pan", w) for w in _ways],
    ]

CAMERA_NOUNS: dict[str, list[str]] = {
    **{
        way: [
            f"{noun} {where}"
            for noun in (
                "pan",
                "pan",
                "tracking shot",
                "slide",
                "sweep",
                "drift",
                "move",
                "movement",
                "truck shot",
                "pan shot",
                "horizontal pan",
            )
            for where in _sideways(way)
        ]
        + [f"{way}ward pan", f"{way} pan", f"{way}ward movement", f"{way}ward slide", f"pan {way}"] * 6
        for way in ("left", "right")
    },
    **{
        way: [
            f"{noun} {where}"
            for noun in ("tilt", "tilt", "pan", "crane shot", "move", "vertical tilt")
            for where in _vertical(way)
        ]
        + [f"{way}ward tilt", f"{way}ward pan", f"{way}ward movement", f"{way}ward drift", f"tilt {way}"] * 3
        + ["rise", "pedestal up", "crane up", "boom up"] * (2 * (way == "up"))
        + ["descent", "pedestal down", "crane down", "boom down"] * (2 * (way == "down"))
        for way in ("up", "down")
    },
    "in": _listed("""zoom in, zoom in, zoom-in, push in, push-in, dolly in, zoom, inward
zoom, forward dolly, move in, dolly-in, approach, forward movement, track in, move closer, move forward,
zoom towards the subject, dolly shot in"""),
    "out": _listed("""zoom out, zoom out, zoom-out, pull back, pull-back, pull out, dolly out,
backward dolly, outward zoom, pullback, retreat, backward movement, pull-out, move back, move backwards,
move away, track back, dolly shot out"""),
    "clockwise": _listed("""rotation, clockwise rotation, roll, clockwise roll, clockwise turn,
clockwise spin, spin, turn clockwise, rotation clockwise, camera roll, camera rotation, clockwise camera
roll"""),
    "counterclockwise": [
        text
        for way in _COUNTER[:5]
        for text in (
            f"{way} rotation",
            f"{way} roll",
            f"{way} turn",
            f"{way} spin",
            f"rotation {way}",
            f"roll {way}",
        )
    ],
    "still": _listed("""static shot, locked-off shot, fixed shot, still shot, tripod shot,
stationary shot, static camera, fixed camera, stationary camera, motionless camera, locked shot, still
camera, unmoving camera, static frame"""),
}
PACED_NOUNS: dict[tuple[str, str], list[str]] = {
    ("in", "quick"): ["crash zoom", "crash zoom in", "snap zoom in", "snap zoom"],
    ("out", "quick"): ["crash zoom out", "snap zoom out"],
    **{(way, "quick"): [f"whip pan {where}" for where in _sideways(way)] for way in ("left", "right")},
    **{(way, "quick"): [f"whip tilt {where}" for where in _vertical(way)] for way in ("up", "down")},
}
STILL_PHRASES = (
    *(
        "the camera does not move",
        "the camera doesn't move",
        "the camera is not moving",
        "the camera is still",
    ),
    *("the camera is fixed", "the camera is static", "the camera is locked off", "no camera movement"),
    *(
        "no camera motion",
        "without camera movement",
        "without moving the camera",
        "do not move the camera",
        "don't move the camera",
        "no movement",
        "on a tripod",
        "static camera",
    ),
    *(
        "the camera never moves",
        "no pan, no zoom",
        "the camera does not pan or zoom",
        "the view stays the same",
    ),
    *("the shot is static", "camera: static", "camera: none", "still camera", "the frame does not move"),
    *("a shot from a tripod", "the camera stands on a tripod", "no zooming, no panning", "locked off"),
    *(
        "no rotation and no zoom",
        "the camera is motionless",
        "camera fixed",
        "nothing moves",
        "static",
        "fixed view",
    ),
)
HELD_OUT_STILL_PHRASES = (
    *("there is no camera movement", "a fixed camera that does not move", "the camera has been locked off"),
    *("we have a static view", "the camera is on a tripod and does not move", "never moving the camera"),
    *(
        "a completely static camera",
        "the shot does not move",
        "the camera is held still",
        "no movement of the camera",
    ),
)

ADVERBS: dict[str, list[str]] = {
    "slow": _listed("""slowly, slowly, slowly, gently, gradually, softly, leisurely, very
slowly, ever so slowly, calmly, lazily, slightly, subtly, unhurriedly, at low speed, slowly and smoothly"""),
    "normal": _listed("""steadily, smoothly, evenly, normally"""),
    "quick": _listed("""quickly, quickly, quickly, rapidly, swiftly, fast, fast, briskly,
speedily, very quickly, very fast, hurriedly, hastily, at high speed, at speed, really fast"""),
}
PACE_PHRASES = (
    "at a {} pace",
    "at {} speed",
    "at a {} speed",
    "with a {} motion",
    "at a {} rate",
    "in a {} way",
    "({})",
)
PACE_ADJECTIVES: dict[str, list[str]] = {
    "slow": _listed("""slow, slow, slow, gentle, very slow, leisurely, gradual"""),
    "normal": _listed("""normal, steady, moderate, regular, medium, even"""),
    "quick": _listed("""quick, fast, fast, rapid, swift, brisk, very fast"""),
}
ADJECTIVES_OF_PACE: dict[str, list[str]] = {
    "slow": _listed("""slow, slow, slow, gentle, gradual, subtle, leisurely, soft, very slow,
slight, unhurried, calm"""),
    "normal": _listed("""steady, smooth, normal, even, moderate, regular"""),
    "quick": _listed("""quick, quick, fast, fast, rapid, swift, brisk, speedy, very fast, very
quick, sudden, hasty"""),
}
TOWARDS: dict[str, list[str]] = {
    "left": ["across", "over", "along", "past"],
    "right": ["across", "over", "along", "past"],
    "up": ["over", "above", "along", "from"],
    "down": ["over", "along", "onto", "towards"],
    "in": ["on", "to", "towards", "toward", "onto", "on"],
    "out": ["from", "to reveal", "from", "to show", "revealing"],
    "clockwise": ["above", "over", "around the axis, showing"],
    "counterclockwise": ["above", "over", "around the axis, showing"],
    "still": ["on", "in front of", "showing"],
}


def third_person(verb: str) -> str:
    """``pan`` to ``pans``, ``push`` to ``pushes``, ``dolly`` to ``dollies``."""
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ies"
    return verb + ("es" if verb.endswith(("sh", "ch", "s", "go")) else "s")


def participle(verb: str) -> str:
    """``pan`` to ``panning``, ``move`` to ``moving``."""
    if verb in {"pan", "spin", "whip", "drop", "get", "run", "swim", "sit", "whip-pan"}:
        return verb + verb[-1] + "ing"
    return (verb[:-1] if verb.endswith("e") else verb) + "ing"


NOUNS = _words("""cup table castle mountain lake river forest tree flower garden house
cottage street bridge boat ship harbour beach wave ocean island cliff desert dune cactus canyon waterfall
meadow field farm barn windmill lighthouse tower cathedral church temple palace statue fountain market
shop cafe restaurant kitchen bottle glass plate bowl apple orange pear lemon banana grape bread cake pie
cheese soup salad pizza burger noodle sushi egg teapot kettle mug spoon fork knife candle lamp lantern
book library desk chair sofa bed window curtain mirror door stair corridor room attic cellar clock piano
guitar violin drum trumpet painting sculpture vase bouquet rose tulip sunflower lily daisy orchid fern
moss mushroom leaf branch trunk root stone rock pebble boulder cave hill valley glacier iceberg snowman
sled cabin tent campfire cat dog puppy kitten horse cow sheep goat pig rabbit fox wolf bear deer owl eagle
sparrow parrot penguin swan duck goose chicken peacock butterfly bee spider beetle snail turtle frog
lizard snake crocodile elephant lion tiger leopard giraffe zebra monkey gorilla panda koala kangaroo whale
dolphin shark octopus jellyfish crab lobster fish coral shell car truck bus tram bicycle motorcycle
scooter train locomotive station airport airplane helicopter balloon rocket satellite planet moon star
galaxy nebula astronaut robot machine factory crane skyscraper city village town square park playground
bench fence gate wall roof chimney balcony terrace courtyard alley road highway tunnel railway canal pond
swamp marsh jungle volcano crater cloud storm rainbow lightning sunset sunrise horizon sky fog snow rain
ice fire smoke ash sand mud grass hay wheat corn vineyard orchard greenhouse toy doll puppet teddy kite
puzzle chessboard dice card coin crown sword shield armour helmet dragon knight king queen princess wizard
witch ghost pirate soldier sailor fisherman farmer baker chef painter musician dancer singer doctor nurse
teacher student child baby girl boy woman man grandmother grandfather couple crowd cyclist hat coat dress
shoe boot glove scarf umbrella bag suitcase basket box barrel jar ribbon necklace ring watch phone laptop
keyboard screen television radio microscope telescope globe map letter envelope newspaper pen pencil brush
ladder hammer rope anchor wheel engine propeller sail lighthouse pier dock ruin pyramid sphinx obelisk
arch column mosaic carpet""")
ADJECTIVES = _words("""old young small big tiny huge red blue green yellow white black brown
grey golden silver purple pink dark bright shiny dusty rusty wooden metal stone glass ancient modern
medieval gothic japanese italian french victorian abandoned crowded empty lonely quiet noisy busy peaceful
beautiful ugly strange mysterious magical colourful pale transparent broken cracked ripe fresh frozen
burning wet dry warm cold sunny misty foggy snowy rainy stormy windy moonlit cosy elegant rustic delicate
heavy round square tall narrow wide deep steaming floating glowing sparkling ruined futuristic realistic
detailed smiling sleeping""")
PLACES = _listed("""on a wooden table, in the mist, by the sea, on a hill, in a forest, near
the river, at the edge of a cliff, in a dark room, on the kitchen counter, in the middle of a field, under
a bridge, in front of a brick wall, on a marble floor, in the snow, in the rain, beside a fireplace, on a
windowsill, in a museum, in an old library, on a city street, at the market, in the desert, on a sandy
beach, under a tree, in the garden, on a rooftop, in a narrow alley, at the harbour, in the mountains, on
a shelf, among tall trees, between two houses, behind a fence, against a blue sky, over the ocean, in
outer space, under water, in a crowded square, near a waterfall, on a frozen lake, in a greenhouse, on a
balcony, in a cave, at a train station, in a field of flowers, on a white background, in a small village,
in a studio, on a plate, at the end of the road""")
LIGHTS = _listed("""at sunset, at sunrise, at night, at noon, at dawn, in the morning light,
by candlelight, under a full moon, in golden light, in soft light, under neon lights, in autumn, in
winter, in spring, on a summer day, under a cloudy sky, in bright sunshine, in the evening, after the
rain, before a storm, in the blue hour, under the stars""")
DOINGS = _listed("""standing alone, seen from above, seen from the side, covered in dust,
covered with snow, reflected in a puddle, half hidden by leaves, made of glass, made of paper, surrounded
by candles, waiting for the bus, reading a book, eating an apple, looking at the camera, wearing a red
coat, holding a flower, sitting on a bench, sleeping in the sun, playing the violin, painted in oil, drawn
in pencil, with long shadows, with many windows, full of people, lit from behind, on its own, dancing in
the rain, drinking tea, writing a letter, smiling at us, that nobody visits, with a view of the sea""")
STYLES = _listed("""cinematic, highly detailed, 4k, photorealistic, 35mm film, oil painting,
watercolour, shallow depth of field, 8 fps, soft focus, macro photography, vintage photograph, wide angle,
black and white, hdr, anime style, studio lighting""")
FILLERS = _words("""here it is that you this video film footage so just maybe of in for our them could would
who one being when where filmed scene picture the a i by to has been made see watch how use get good also""")
#: Bare participles that would be read as the picture's ("a wheel, rolling").
THINGS_VERBS = frozenset({"move", "roll", "spin", "track"})
#: Words of motion, direction and pace that say nothing of a camera.
MISLEADING = _listed("""a sign on the right wall, a still lake, a fast car, turning wheels, a
slow river, a left-handed guitarist, a rising sun, a spinning top, a quick brown fox, downtown at night, a
clock with moving hands, an upside-down boat, a zoom lens on a desk, a frying pan on the stove, rolling
hills, a house on the left, a tree on the right side of the road, stairs going up, the left bank of the
river, an outdoor cafe, inside a quiet room, a still life with fruit, an old film camera on a shelf,
falling leaves, a woman with a camera in her hands, a quiet corner in the back, a fast food restaurant, a
left turn sign, a slow cooker, the front of the house, a revolving door, a man in a rotating chair, a
windmill with rotating blades, a carousel turning, a door on the left, a path leading down to the sea, a
road going up the hill, a child on a swing, a car parked on the left of the street, people walking from
left to right, a plane taking off, a train pulling away, a bird in a tree on the left, a boat drifting
slowly, a quick sketch of a horse, the right hand of a statue, a fast train, smoke rising slowly from a
chimney, snow falling gently, water flowing quickly down the rocks, a rolling pin, a gentle breeze, a
rapid stream, a swift in the sky, a gentle giant, a lift in a hotel, an up-and-coming artist, a snail
moving slowly, a slide in a playground, a truck on the highway, a track in the woods, a sweeping view, a
crane above the harbour, a fixed star, steady rain, a normal day in the city, a calm sea, a soft pillow,
upright piano, a forward-looking statue""")
MOVES_OF_THINGS: list[Action] = _pairs(
    """move/to the left, move/to the right, drift/to the left, drift/to the
right, fly/up, fly/away, run/to the right, run/to the left, rise/, fall/, spin/, spin/clockwise,
turn/around, walk/forward, float/upwards, sink/, go/down, climb/up, come/closer, swim/from left to right,
roll/down the hill, slide/to the left, walk/away, float/by, wave/, stand/still, sit/still, rise/up,
turn/left, turn/right, drop/down, swing/, pass/by"""
)


def _parted(phrases: list[str], every: int = 7) -> tuple[list[str], list[str]]:
    """The phrases for training, and every seventh for testing alone."""
    distinct = sorted(set(phrases))
    return [p for i, p in enumerate(distinct) if i % every], distinct[::every]


_PARTED = {
    "nouns": _parted(NOUNS),
    "adjectives": _parted(ADJECTIVES),
    "places": _parted(PLACES),
    "lights": _parted(LIGHTS),
    "doings": _parted(DOINGS),
    "misleading": _parted(MISLEADING),
}
TRAINED = {kind: trained for kind, (trained, _) in _PARTED.items()}
HELD_OUT = {kind: held_out for kind, (_, held_out) in _PARTED.items()}
