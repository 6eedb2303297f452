"""What the ``claims`` artifact is called, and its files. Apart from the build: serving needs no pyarrow."""

from __future__ import annotations

NAME = "claims"
WORDS_FILE = "words.arrows"
"""``stem``: of all phrases, in the order of their characters (`phrases`), the most frequent first."""
PHRASES_FILE = "phrases.arrows"
"""``phrase``: one character per word. ``terms``: rows of terms that it names. ``names``: genes it is a name of."""
CALLED_FILE = "called.arrows"
"""``genes``: of each phrase, rows of the genes whose whole name, or whose family's, it is."""
TERMS_FILE = "terms.arrows"
"""``id``, ``name``, ``aspect``; ``bits``, its information content; ``ancestors``: rows of itself, what it is a kind or
part of, and what it regulates, sorted."""
IDS_FILE = "ids.arrows"
"""``id``: numbers of terms, live, alternative and replaced ones, sorted; ``term``: rows."""
GENES_FILE = "genes.arrows"
"""``symbol``; ``terms``: rows of annotated terms and their ancestors, sorted; ``direct``: rows of annotated terms,
sorted; ``codes``: of each of those a row of the evidence codes; ``denied``: rows of terms annotated with NOT and of all
below them, sorted."""
MENTIONS_FILE = "mentions.arrows"
"""``name``: a symbol or alias as it is written, sorted by its bytes; ``gene``: its row."""
CODES_FILE = "codes.arrows"
"""``codes``: evidence codes of one annotation, as they are shown."""
SCREEN_FILE = "screen.arrows"
"""Training rows of the screens, one per pair: ``pair``, (line × genes + perturbation) × genes + measured gene, sorted,
the line by its place in ``parameters["lines"]``, the genes by their rows; ``response``, DECREASED, UNCHANGED, INCREASED
or CHANGED as in `bioverify.artifacts.responses`. Pairs whose rows contradict each other are left out."""
LINKS_FILE = "links.arrows"
"""Pairs of the networks that were given: ``pair``, gene × genes + other gene, sorted; the lesser first unless the
network says "regulates"; ``network``, by its place in the next. Without networks neither file is there."""
NETWORKS_FILE = "networks.arrows"
"""``name``; ``says``, as in `settings.Says`."""
