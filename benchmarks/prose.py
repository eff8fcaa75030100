"""Ordinary prose for the messages of the benchmarks: what compresses like real text, and is the same in every run.

Sentences are put together from words that are common in English, the commonest most often, in the order that English
has them. What counts is that they compress as real prose does, and no better. A turn with two messages of 300 bytes
has 673; on average of 300 such turns they become, with

    text                                        LZ4   zstd 1   zlib 6
    this                                        596      461      438
    docs/ of this repository                    580      464      443
    the licenses in /usr/share/common-licenses  561      447      426
"""

import random

_PLACES = 64 * 1024
_MAX_BYTES = 32 * 1024
_SEED = 20261122


def _words(text: str) -> list[str]:
    return text.split()


_NOUNS = _words("""
time year people way day man thing woman life child world school state family student group country problem hand part
place case week company system program question work government number night point home water room mother area money
story fact month lot right study book eye job word business issue side kind head house service friend father power hour
game line end member law car city community name president team minute idea body information back parent face level
office door health person art war history party result change morning reason research girl guy moment air teacher force
education garden letter window kitchen train station ticket price market river bridge summer winter doctor answer plan
meeting budget report table flight hotel weather recipe dinner message email password printer keyboard lesson exercise
""")
_VERBS = _words("""
is was has had said made went took came saw knew got gave found thought told became showed left felt put brought began
kept held wrote stood heard let meant set met ran paid sat spoke led read grew lost fell sent built drew broke
spent cut rose drove bought wore chose needs wants asks works calls tries seems helps plays moves lives believes happens
includes continues changes watches follows stops creates offers remembers considers appears waits serves expects stays
""")
_ADJECTIVES = _words("""
good new first last long great little own other old right big high different small large next early young important few
public bad same able free clear full special easy strong possible whole recent common late real single hard open simple
short wrong cold warm busy happy quiet local recent careful expensive cheap certain useful strange serious left heavy
""")
_ADVERBS = _words("""
also very often never always still again soon almost already perhaps usually quickly really probably finally together
""")
_LINKS = _words("and but so because while when if although since until before after whether")
_PREPOSITIONS = _words("of in to for on with at by from about into through between during without under around against")
_ARTICLES = _words("the the the the a a this that my your our their his her some every another each no any")
_PRONOUNS = _words("I you he she it we they there nobody everyone somebody")


def _prose(size: int, seed: int) -> str:
    """Returns so many characters of sentences."""
    chance = random.Random(seed)

    def one(words: list[str]) -> str:
        return words[int(len(words) * chance.random() ** 2)]

    def phrase() -> list[str]:
        return [one(_ARTICLES), *([one(_ADJECTIVES)] if chance.random() < 0.4 else []), one(_NOUNS)]

    def clause() -> list[str]:
        words = [one(_PRONOUNS)] if chance.random() < 0.4 else phrase()
        words += [*([one(_ADVERBS)] if chance.random() < 0.25 else []), one(_VERBS)]
        if chance.random() < 0.7:
            words += phrase()
        while chance.random() < 0.45:
            words += [one(_PREPOSITIONS), *phrase()]
        return words

    text: list[str] = []
    length = 0
    while length < size:
        words = clause()
        while chance.random() < 0.4:
            words[-1] += "," if chance.random() < 0.5 else ""
            words += [one(_LINKS), *clause()]
        if chance.random() < 0.05:
            words.insert(chance.randrange(1, len(words)), str(chance.randrange(2, 2000)))
        sentence = " ".join(words)
        text.append(sentence[0].upper() + sentence[1:] + ("?" if chance.random() < 0.1 else "."))
        length += len(text[-1]) + 1
    return " ".join(text)[:size]


_TEXT = _prose(_PLACES + _MAX_BYTES, _SEED)


def prose(place: int, size: int) -> str:
    """Returns `size` characters of ASCII that JSON does not escape, at most 32 KiB; neighbouring places share none."""
    start = place * 40_503 % _PLACES
    return _TEXT[start : start + size]
