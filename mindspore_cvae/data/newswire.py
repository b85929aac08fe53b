"""The words and the productions of the embedded corpus: newswire in a few hundred words.

A story has a topic and a direction (things go well or badly), a sentence has a tense; all three are
drawn once a sentence and hold to its end, across nested clauses. Topic and direction choose the
verbs, the topic most nouns, the tense the verb forms and the expressions of time. Verbs, pronouns
and possessives agree with their subject over everything that stands between.

A symbol is a tuple: the name of a production, and its features. A production returns the symbol's
alternatives, as pairs of a weight and a right-hand side; words are plain strings.

What makes the grammar unambiguous:
    - every clause has a predicate, whose verb belongs to one topic and one direction alone;
    - no verb has equal present and past forms, no noun equal singular and plural forms;
    - a noun phrase has one modifier at most, and it begins with a word that cannot begin what
      follows the noun phrase;
    - what modifies a clause stands in a fixed order at its end (place, time, subordinate clause),
      and nothing that stands outside a clause can follow it without a comma.
"""

from collections.abc import Callable
from typing import NamedTuple

Symbol = tuple
Alternatives = list[tuple[float, tuple]]


class Verb(NamedTuple):
    """The forms of a verb: "to rise", "it rises", "it rose", "it has risen"."""

    base: str
    third_person: str
    past: str
    participle: str


class Noun(NamedTuple):
    """The forms of a noun."""

    singular: str
    plural: str


class Topic(NamedTuple):
    """The words of a topic.

    Attributes:
        weight: relative frequency.
        persons, organisations: nouns that act; who and that are their relative pronouns.
        events: nouns to which something happens of itself.
        objects: nouns to which something is done.
        adjectives: of events and objects.
        happening: for each direction, intransitive verbs; their subjects are events.
        acting: for each direction, transitive verbs; their objects are objects.
        measure: preposition and units of numbers behind intransitive verbs.
    """

    weight: float
    persons: list[Noun]
    organisations: list[Noun]
    events: list[Noun]
    objects: list[Noun]
    adjectives: list[str]
    happening: dict[str, list[Verb]]
    acting: dict[str, list[Verb]]
    measure: tuple[str, list[str]]


def _with_s(stem: str) -> str:
    """The plural of a regular noun and the third person of a regular verb."""
    if stem.endswith("y") and stem[-2] not in "aeiou":
        return f"{stem[:-1]}ies"
    return f"{stem}es" if stem.endswith(("s", "x", "ch", "sh", "o")) else f"{stem}s"


def _with_ed(stem: str) -> str:
    """The past of a regular verb whose last consonant is not doubled."""
    if stem.endswith("y") and stem[-2] not in "aeiou":
        return f"{stem[:-1]}ied"
    return f"{stem}d" if stem.endswith("e") else f"{stem}ed"


def _verbs(text: str) -> list[Verb]:
    """Verbs from `base[:past[:participle]]`, separated by blanks."""
    verbs = []
    for entry in text.split():
        base, *irregular = entry.split(":")
        past = irregular[0] if irregular else _with_ed(base)
        verbs.append(Verb(base, _with_s(base), past, irregular[-1] if irregular else past))
    return verbs


def _nouns(text: str) -> list[Noun]:
    """Nouns from `singular[:plural]`, separated by blanks."""
    nouns = []
    for entry in text.split():
        singular, *irregular = entry.split(":")
        nouns.append(Noun(singular, irregular[0] if irregular else _with_s(singular)))
    return nouns


TOPICS = {
    "markets": Topic(
        weight=5,
        persons=_nouns("trader investor broker banker economist"),
        organisations=_nouns("bank insurer exporter retailer airline manufacturer"),
        events=_nouns("price currency index commodity yield"),
        objects=_nouns("dividend loan factory portfolio:portfolios stake bond"),
        adjectives="foreign domestic industrial volatile cheap".split(),
        happening={
            "well": _verbs("rise:rose:risen climb recover surge rebound"),
            "badly": _verbs("fall:fell:fallen slip:slipped decline plunge sink:sank:sunk"),
        },
        acting={
            "well": _verbs("raise acquire expand finance guarantee"),
            "badly": _verbs("sell:sold slash lower liquidate forfeit"),
        },
        measure=("by", ["percent", "points", "cents"]),
    ),
    "politics": Topic(
        weight=4,
        persons=_nouns("senator minister diplomat mayor lawmaker"),
        organisations=_nouns("party committee council union ministry parliament"),
        events=_nouns("bill treaty reform campaign negotiation"),
        objects=_nouns("law tax budget subsidy amendment alliance"),
        adjectives="federal controversial conservative liberal diplomatic".split(),
        happening={
            "well": _verbs("advance prosper progress succeed"),
            "badly": _verbs("stall lapse unravel founder"),
        },
        acting={
            "well": _verbs("adopt endorse enact ratify defend"),
            "badly": _verbs("oppose veto block repeal denounce"),
        },
        measure=("for", ["months", "weeks", "years"]),
    ),
    "courts": Topic(
        weight=3,
        persons=_nouns("lawyer judge prosecutor defendant juror"),
        organisations=_nouns("court tribunal agency firm regulator"),
        events=_nouns("trial case lawsuit investigation hearing"),
        objects=_nouns("verdict settlement charge contract patent penalty"),
        adjectives="criminal civil unusual lengthy legal".split(),
        happening={
            "well": _verbs("proceed conclude resume continue"),
            "badly": _verbs("collapse fail halt drag:dragged"),
        },
        acting={
            "well": _verbs("uphold:upheld accept confirm secure honor"),
            "badly": _verbs("overturn contest violate cancel deny"),
        },
        measure=("for", ["days", "weeks", "years"]),
    ),
    "health": Topic(
        weight=3,
        persons=_nouns("doctor nurse surgeon patient researcher"),
        organisations=_nouns("hospital clinic laboratory university institute"),
        events=_nouns("infection outbreak symptom epidemic fever"),
        objects=_nouns("vaccine drug therapy treatment antibiotic implant"),
        adjectives="rare experimental mild effective seasonal".split(),
        happening={
            "well": _verbs("subside vanish diminish heal"),
            "badly": _verbs("persist multiply recur:recurred return"),
        },
        acting={
            "well": _verbs("develop discover administer approve prescribe"),
            "badly": _verbs("withdraw:withdrew:withdrawn suspend restrict recall reject"),
        },
        measure=("for", ["weeks", "days", "months"]),
    ),
    "sports": Topic(
        weight=3,
        persons=_nouns("coach player goalkeeper captain athlete"),
        organisations=_nouns("team club squad federation academy"),
        events=_nouns("defense striker lineup offense rookie"),
        objects=_nouns("match title trophy championship medal tournament"),
        adjectives="olympic regional decisive unbeaten difficult".split(),
        happening={
            "well": _verbs("improve excel:excelled triumph prevail"),
            "badly": _verbs("falter stumble struggle disappoint"),
        },
        acting={
            "well": _verbs("win:won celebrate dominate capture clinch"),
            "badly": _verbs("lose:lost miss concede surrender squander"),
        },
        measure=("for", ["minutes", "games", "weeks"]),
    ),
    "weather": Topic(
        weight=2,
        persons=_nouns("resident farmer sailor fisherman:fishermen tourist"),
        organisations=_nouns("village harbor airport port province"),
        events=_nouns("storm flood hurricane drought blizzard"),
        objects=_nouns("road bridge ferry shelter tunnel dam"),
        adjectives="coastal severe tropical heavy northern".split(),
        happening={
            "well": _verbs("ease fade weaken recede"),
            "badly": _verbs("strengthen intensify worsen linger"),
        },
        acting={
            "well": _verbs("reopen rebuild:rebuilt repair restore inspect"),
            "badly": _verbs("close damage abandon neglect wreck"),
        },
        measure=("for", ["hours", "days", "minutes"]),
    ),
}

SHARED_NOUNS = {
    "persons": _nouns("official expert executive critic worker"),
    "organisations": _nouns("company government foundation"),
}
SHARED_VERBS = {
    "reporting": _verbs("say:said announce warn claim explain"),
    "dealing": _verbs("meet:met advise visit trust criticize consult"),
    "remarking": _verbs("describe mention discuss examine propose"),
}
"""Words of every topic: who reports, what agents do to one another, what they do to themes."""

AGENT_ADJECTIVES = "local former senior leading independent young private".split()
THEME_ADJECTIVES = "new important large costly recent".split()
ADVERBS = "again sharply slowly quickly steadily unexpectedly".split()
QUANTIFIERS = "several some many most".split()
CITIES = "london tokyo boston paris chicago berlin geneva toronto".split()
WEEKDAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
MONTHS = "january february april june july september october december".split()
PERIODS = "week month year".split()
UNITS = "two three four five six seven eight nine".split()
TEENS = "ten eleven twelve fifteen eighteen".split()
TENS = "twenty thirty forty fifty sixty eighty ninety".split()

NUMBERS = {"singular": 0.55, "plural": 0.45}
TENSES = {"past": 0.6, "present": 0.25, "future": 0.15}
REPORT_TENSE = {"past": "past", "present": "present", "future": "past"}
"""Tense of what is reported or told aside in a sentence of some tense."""
OTHER = {"well": "badly", "badly": "well"}
"""The directions, and what goes the other way."""


class Subordination(NamedTuple):
    """Clauses that depend on one in some tense.

    Attributes:
        tense: theirs.
        agreeing: conjunctions of clauses with the same direction.
        opposing: conjunctions of clauses with the other direction.
    """

    tense: str
    agreeing: list[str]
    opposing: list[str]


SUBORDINATION = {
    "past": Subordination("past", ["after", "because", "when"], ["although", "while"]),
    "present": Subordination("present", ["because", "when", "as"], ["although", "while"]),
    "future": Subordination("present", ["if", "once", "when"], ["although", "while"]),
}

START: Symbol = ("sentence",)
PRODUCTIONS: dict[str, Callable[..., Alternatives]] = {}


def production(function: Callable[..., Alternatives]) -> Callable[..., Alternatives]:
    """Registers a production under its name."""
    PRODUCTIONS[function.__name__] = function
    return function


def alternatives(symbol: Symbol) -> Alternatives:
    """The alternatives of a symbol."""
    name, *features = symbol
    return PRODUCTIONS[name](*features)


def ranked(words: list[str], share: float = 1) -> Alternatives:
    """Words whose weights sum to `share`, falling with the rank, as Zipf's law has it."""
    total = sum(1 / (rank + 2) for rank in range(len(words)))
    return [(share / total / (rank + 2), (word,)) for rank, word in enumerate(words)]


def indefinite_article(word: str) -> str:
    """The article before a word."""
    return "an" if word[0] in "aeiou" and not word.startswith("uni") else "a"


# Sentences


@production
def sentence() -> Alternatives:
    return [(topic.weight, (("story", name),)) for name, topic in TOPICS.items()]


@production
def story(topic: str) -> Alternatives:
    return [
        (weight, (("text", topic, direction, tense),))
        for direction in OTHER
        for tense, weight in TENSES.items()
    ]


@production
def text(topic: str, direction: str, tense: str) -> Alternatives:
    """A clause, alone or with something before or behind it."""
    report = REPORT_TENSE[tense]
    untimed = ("clause", topic, direction, tense, 1, False)
    timed = ("clause", topic, direction, tense, 1, True)
    statement = ("statement", topic, direction, tense, True)
    alternatives: Alternatives = [
        (0.46, (("clause", topic, direction, tense, 2, True),)),
        (0.12, (("time", tense), ",", untimed)),
        (0.14, (("subordinate", topic, direction, tense, 0), ",", statement)),
        (0.03, (timed, ",", "according", "to", ("source", topic, "singular"))),
        (0.03, (timed, ",", "according", "to", ("source", topic, "plural"))),
    ]
    for number, pronoun, agent in (
        ("singular", "it", "organisation"),
        ("plural", "they", "plural"),
    ):
        source = ("source", topic, number)
        said = ("simple", ("reporting",), report, number)
        itself = ("nominal", "organisations", topic, number)
        action = ("action", topic, direction, tense, agent)
        alternatives += [
            (0.03, (timed, ",", source, said)),
            (0.03, (source, said, "that", timed)),
            (0.02, (source, said, "on", ("weekday",), "that", untimed)),
            (0.03, (itself, said, "that", pronoun, action)),
        ]
    return alternatives


@production
def source(topic: str, number: str) -> Alternatives:
    """Who tells the news."""
    noun = ("noun", "persons", topic, number)
    if number == "singular":
        return [(0.6, ("the", noun)), (0.4, ("one", noun))]
    return [(0.4, ("the", noun)), (0.6, (noun,))]


@production
def subordinate(topic: str, direction: str, tense: str, depth: int) -> Alternatives:
    """A conjunction and its clause, for a clause of the given features."""
    inner, agreeing, opposing = SUBORDINATION[tense]
    return [
        (share / len(conjunctions), (conjunction, ("clause", topic, way, inner, depth, False)))
        for share, conjunctions, way in (
            (0.7, agreeing, direction),
            (0.3, opposing, OTHER[direction]),
        )
        for conjunction in conjunctions
    ]


@production
def clause(topic: str, direction: str, tense: str, depth: int, timed: bool) -> Alternatives:
    """A statement, perhaps with a subordinate clause; at most `depth` of them are nested."""
    statement = ("statement", topic, direction, tense, timed)
    if depth == 0:
        return [(1, (statement,))]
    subordinate = ("subordinate", topic, direction, tense, depth - 1)
    return [(0.7, (statement,)), (0.3, (statement, subordinate))]


@production
def statement(topic: str, direction: str, tense: str, timed: bool) -> Alternatives:
    """A predication, perhaps with its place and, if `timed`, its time."""
    core = ("predication", topic, direction, tense)
    place, time = ("in", ("city",)), ("time", tense)
    alternatives: Alternatives = [(0.4, (core,)), (0.2, (core, *place))]
    if timed:
        alternatives += [(0.3, (core, time)), (0.1, (core, *place, time))]
    return alternatives


@production
def predication(topic: str, direction: str, tense: str) -> Alternatives:
    """A subject and what it does, what happens to it, or what is done to it."""
    told = REPORT_TENSE[tense]
    alternatives: Alternatives = []
    for number, share in NUMBERS.items():
        for kind, being in (("persons", "person"), ("organisations", "organisation")):
            agent = ("agent", kind, topic, number, told, 2)
            likeness = being if number == "singular" else "plural"
            action = ("action", topic, direction, tense, likeness)
            alternatives.append((0.25 * share, (agent, action)))
        event = ("theme", "events", topic, number, told)
        alternatives.append((0.35 * share, (event, ("happening", topic, direction, tense, number))))
        target = ("theme", "objects", topic, number, told)
        alternatives.append((0.15 * share, (target, ("passive", topic, direction, tense, number))))
    return alternatives


# Predicates


@production
def action(topic: str, direction: str, tense: str, agent: str) -> Alternatives:
    """What an agent does, perhaps two things; `agent` is person, organisation or plural."""
    short = ("transitive", topic, direction, tense, agent, False)
    return [
        (0.9, (("transitive", topic, direction, tense, agent, True),)),
        (0.1, (short, "and", short)),
    ]


@production
def transitive(topic: str, direction: str, tense: str, agent: str, modified: bool) -> Alternatives:
    """A verb and its object: the agent's own, or another, which may be `modified`."""
    verb = ("finite", ("acting", topic, direction), tense, agent)
    alternatives: Alternatives = []
    for number, share in NUMBERS.items():
        other: tuple = ("nominal", "objects", topic, number)
        if modified:
            other = ("theme", "objects", topic, number, REPORT_TENSE[tense])
        alternatives += [
            (0.75 * share, (verb, other)),
            (0.25 * share, (verb, ("possessed", topic, agent, number))),
        ]
    return alternatives


@production
def possessed(topic: str, agent: str, number: str) -> Alternatives:
    """An object of the agent's own."""
    determiners = {"person": ["his", "her"], "organisation": ["its"], "plural": ["their"]}[agent]
    return [(1, (determiner, ("group", "objects", topic, number))) for determiner in determiners]


@production
def happening(topic: str, direction: str, tense: str, number: str) -> Alternatives:
    verb = ("finite", ("happening", topic, direction), tense, number)
    preposition, _ = TOPICS[topic].measure
    measure = (preposition, ("cardinal",), ("measure", topic))
    return [
        (0.25, (verb,)),
        (0.3, (verb, ("adverb",))),
        (0.3, (verb, *measure)),
        (0.15, (verb, ("adverb",), *measure)),
    ]


@production
def passive(topic: str, direction: str, tense: str, number: str) -> Alternatives:
    auxiliary = {
        ("past", "singular"): ("was",),
        ("past", "plural"): ("were",),
        ("present", "singular"): ("is",),
        ("present", "plural"): ("are",),
    }.get((tense, number), ("will", "be"))
    participle = ("form", ("acting", topic, direction), "participle")
    return [
        (share, (*auxiliary, participle, "by", ("nominal", kind, topic, among)))
        for kind in ("persons", "organisations")
        for among, share in NUMBERS.items()
    ]


@production
def finite(verbs: Symbol, tense: str, subject: str) -> Alternatives:
    """A predicate's verb: simple, perfect, or in one of the ways to speak of the future."""
    number = "plural" if subject == "plural" else "singular"
    base, participle = ("form", verbs, "base"), ("form", verbs, "participle")
    if tense == "future":
        be = "is" if number == "singular" else "are"
        return [
            (0.6, ("will", base)),
            (0.2, (be, "expected", "to", base)),
            (0.2, (be, "likely", "to", base)),
        ]
    simple = ("simple", verbs, tense, number)
    if tense == "past":
        return [(0.85, (simple,)), (0.15, ("had", participle))]
    return [(0.7, (simple,)), (0.3, ("has" if number == "singular" else "have", participle))]


@production
def simple(verbs: Symbol, tense: str, number: str) -> Alternatives:
    """A verb in the simple past or present."""
    present = "third_person" if number == "singular" else "base"
    return [(1, (("form", verbs, "past" if tense == "past" else present),))]


# Noun phrases


@production
def agent(kind: str, topic: str, number: str, told: str, depth: int) -> Alternatives:
    """Persons or organisations with one modifier at most.

    `told` is the tense of relative clauses, of which at most `depth` are nested.
    """
    nominal = ("nominal", kind, topic, number)
    if depth == 0:
        return [(1, (nominal,))]
    pronoun = "who" if kind == "persons" else "that"
    dealing = ("simple", ("dealing",), told, number)
    alternatives: Alternatives = [
        (0.72, (nominal,)),
        (0.08, (nominal, "from", ("city",))),
        (0.06, (nominal, "of", ("owner", topic))),
    ]
    alternatives += [
        (0.05 * share, (nominal, pronoun, dealing, ("agent", other, topic, among, told, depth - 1)))
        for other in ("persons", "organisations")
        for among, share in NUMBERS.items()
    ]
    if number == "plural":
        single = ("nominal", kind, topic, "singular")
        alternatives.append((0.04, (single, "and", single)))
    return alternatives


@production
def theme(kind: str, topic: str, number: str, told: str) -> Alternatives:
    """Events or objects with one modifier at most; `told` is the tense of a relative clause."""
    nominal = ("nominal", kind, topic, number)
    alternatives: Alternatives = [(0.76, (nominal,)), (0.12, (nominal, "of", ("owner", topic)))]
    alternatives += [
        (
            0.06 * share,
            (
                nominal,
                "that",
                ("nominal", other, topic, among),
                ("simple", ("remarking",), told, among),
            ),
        )
        for other in ("persons", "organisations")
        for among, share in NUMBERS.items()
    ]
    return alternatives


@production
def owner(topic: str) -> Alternatives:
    return [
        (share, ("the", ("noun", "organisations", topic, number)))
        for number, share in NUMBERS.items()
    ]


@production
def nominal(kind: str, topic: str, number: str) -> Alternatives:
    """A noun with its determiner and at most one adjective."""
    group, noun = ("group", kind, topic, number), ("noun", kind, topic, number)
    if number == "plural":
        return [
            (0.45, ("the", group)),
            (0.25, (group,)),
            (0.2, (("quantifier",), group)),
            (0.1, (("cardinal",), noun)),
        ]
    return [
        (0.6, ("the", group)),
        (0.1, ("this", group)),
        (0.3, (("indefinite", kind, topic),)),
    ]


@production
def indefinite(kind: str, topic: str) -> Alternatives:
    """A or an, a singular noun, perhaps an adjective between them."""
    noun = ("noun", kind, topic, "singular")
    return [
        (0.7 * share, (indefinite_article(word), word))
        for share, (word,) in PRODUCTIONS["noun"](kind, topic, "singular")
    ] + [
        (0.3 * share, (indefinite_article(word), word, noun))
        for share, (word,) in PRODUCTIONS["adjective"](kind, topic)
    ]


@production
def group(kind: str, topic: str, number: str) -> Alternatives:
    """A noun with at most one adjective."""
    noun = ("noun", kind, topic, number)
    return [(0.7, (noun,)), (0.3, (("adjective", kind, topic), noun))]


# Words


@production
def noun(kind: str, topic: str, number: str) -> Alternatives:
    """A noun, one in five of those that every topic shares where there are any."""
    own, shared = getattr(TOPICS[topic], kind), SHARED_NOUNS.get(kind, [])
    alternatives = ranked([getattr(noun, number) for noun in own], 0.8 if shared else 1)
    return alternatives + ranked([getattr(noun, number) for noun in shared], 0.2)


@production
def adjective(kind: str, topic: str) -> Alternatives:
    if kind in SHARED_NOUNS:
        return ranked(AGENT_ADJECTIVES)
    return ranked(TOPICS[topic].adjectives, 0.6) + ranked(THEME_ADJECTIVES, 0.4)


@production
def form(verbs: Symbol, form: str) -> Alternatives:
    """One form of the verbs of a shared list, or of a list of a topic and direction."""
    name, *features = verbs
    if features:
        topic, direction = features
        chosen = getattr(TOPICS[topic], name)[direction]
    else:
        chosen = SHARED_VERBS[name]
    return ranked([getattr(verb, form) for verb in chosen])


@production
def adverb() -> Alternatives:
    return ranked(ADVERBS)


@production
def quantifier() -> Alternatives:
    return ranked(QUANTIFIERS)


@production
def city() -> Alternatives:
    return ranked(CITIES)


@production
def weekday() -> Alternatives:
    return [(1, (day,)) for day in WEEKDAYS]


@production
def time(tense: str) -> Alternatives:
    """When something happened, happens, or will."""
    near, which = {
        "past": ("yesterday", "last"),
        "present": ("today", "this"),
        "future": ("tomorrow", "next"),
    }[tense]
    alternatives: Alternatives = [(0.2, (near,)), *((0.1, (which, period)) for period in PERIODS)]
    if tense != "present":
        alternatives += [(0.4, ("on", ("weekday",))), (0.2, ("in", ("month",)))]
    return alternatives


@production
def month() -> Alternatives:
    return [(1, (month,)) for month in MONTHS]


@production
def measure(topic: str) -> Alternatives:
    _, units = TOPICS[topic].measure
    return ranked(units)


@production
def cardinal() -> Alternatives:
    """A number from two to nine hundred."""
    return [
        (0.5, (("unit",),)),
        (0.15, (("teen",),)),
        (0.15, (("ten",),)),
        (0.15, (("ten",), ("unit",))),
        (0.05, (("unit",), "hundred")),
    ]


@production
def unit() -> Alternatives:
    return ranked(UNITS)


@production
def teen() -> Alternatives:
    return ranked(TEENS)


@production
def ten() -> Alternatives:
    return ranked(TENS)
