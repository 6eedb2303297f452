"""How people, models and papers word the four questions: a hundred and more of each, put together of parts.

``READ`` parts make wordings that ask exactly what the published form asks; ``UNREAD`` ones ask something else, or leave
out what the form needs, and are to be refused.
"""

from itertools import product

LEADS = (
    "Is a knockdown of AARS in K562 cells likely to",
    "Is a CRISPRi knockdown of AARS in K562 cells likely to",
    "is a knock-down of **AARS** in k562 cells likely to",
    "Is the CRISPRi-mediated knockdown of gene AARS in K-562 cells likely to",
    "Is a  knockdown of\nAARS in\u00a0K562 cells likely to",
    "Is CRISPR interference knockdown of the gene AARS in K562 likely to",
    "Is a knock\u2011down of \u201cAARS\u201d in the K562 cell line likely to",
    "Is AARS knockdown in K562 cells likely to",
    "Is knocking down AARS in K562 cells likely to",
    "Would a knockdown of AARS in K562 cells be likely to",
    "Does CRISPRi knockdown of AARS in K562 cells",
    "Question: Will a knockdown of `AARS` in CVCL_0004 cells",
    "Is a gene knockdown of _AARS_ in human K562 cells likely to",
    "Would a knockdown of AARS in K562 cells",
)
DIFFERENTIAL = (
    "result in differential expression of TRIB3?",
    "result in differential expression of TRIB3? The answer is either yes or no.",
    "result in differential expression of gene TRIB3?",
    "lead to differential expression of *TRIB3*?",
    "cause differential gene expression of TRIB3 ?",
    "change the expression of TRIB3?",
    "alter the expression level of TRIB3?",
    "affect expression of the TRIB3 gene? Think first.",
    "change the expression of TRIB3, yes or no?",
    "result in differential expression of TRIB3. Answer yes or no.",
)
DIRECTION = (
    "result decrease or increase of TRIB3?",
    "result decrease or increase of TRIB3? The answer is either decrease or increase.",
    "result in a decrease or increase of TRIB3?",
    "result in an increase or a decrease in the expression of TRIB3?",
    "lead to increased or decreased expression of TRIB3?",
    "cause upregulation or downregulation of TRIB3?",
    "increase or decrease the expression of TRIB3?",
    "decrease or increase expression of gene **TRIB3**?",
    "upregulate or downregulate TRIB3?",
    "result in increase/decrease of the TRIB3 gene?",
)
CO_EXPRESSED = tuple(
    f"{lead} {genes} {ending}"
    for lead, genes, ending in (
        *product(
            ("Are", "are", "Q: Are"),
            (
                "gene AARS and gene TRIB3 likely to be",
                "genes AARS and TRIB3 likely to be",
                "AARS and TRIB3 likely to be",
                "the genes **AARS** and **TRIB3** likely to be",
                "gene \u201cAARS\u201d and gene \u201cTRIB3\u201d likely to be",
                "the AARS and TRIB3 genes",
                "AARS and TRIB3",
            ),
            (
                "co-expressed together?",
                "co-expressed together? Give a binary yes/no answer only.",
                "coexpressed?",
                "co\u2011expressed  with each other?",
                "expressed together, yes or no?",
            ),
        ),
        ("Is", "gene AARS likely to be", "co-expressed with gene TRIB3?"),
        ("Is", "AARS", "coexpressed with TRIB3?"),
    )
)
FUNCTION = tuple(
    f"{lead}{genes}{end}"
    for lead, genes, end in product(
        (
            "What is known about the function of ",
            "what is known about the functions of ",
            "What is already known about the function of ",
            "What do we know about the biological function of ",
            "What do you know about the molecular functions of ",
            "What is the function of ",
            "What are the functions of ",
        ),
        (
            "AARS, TRIB3",
            "AARS and TRIB3",
            "genes AARS and TRIB3",
            "gene AARS and gene TRIB3",
            "**AARS** and *TRIB3*",
            "the genes AARS, TRIB3",
            "the AARS and TRIB3 genes",
        ),
        ("?", " ?", "? Be brief."),
    )
)
READ = {
    "differential_expression": tuple(map(" ".join, product(LEADS, DIFFERENTIAL))),
    "direction_of_change": tuple(map(" ".join, product(LEADS, DIRECTION))),
    "co_expression": CO_EXPRESSED,
    "gene_annotation": FUNCTION,
}

UNREAD_LEADS = (
    "Is a knockout of AARS in K562 cells likely to",
    "Does CRISPR-Cas9 deletion of AARS in K562 cells",
    "Is overexpression of AARS in K562 cells likely to",
    "Is CRISPRa activation of AARS in K562 cells likely to",
    "Is a knockdown of AARS+MYC in K562 cells likely to",
    "Is a double knockdown of AARS and MYC in K562 cells likely to",
    "Is treatment of K562 cells with tunicamycin likely to",
    "Is a knockdown of AARS in K562 cells unlikely to",
    "Is a knockdown of AARS in K562 cells not likely to",
    "Is a knockdown of AARS in K562 cells treated with tunicamycin likely to",
    "Is a knockdown of AARS likely to",
    "Is a knockdown of it in K562 cells likely to",
    "If AARS is lost in K562 cells, does this",
)
UNREAD = tuple(
    map(
        " ".join,
        product(
            UNREAD_LEADS,
            (
                "result in differential expression of TRIB3?",
                "change the expression of TRIB3 ?",
                "result decrease or increase of TRIB3?",
                "lead to an increase or decrease in the expression of TRIB3?",
            ),
        ),
    )
)
"""Fifty-two wordings that ask about something else than one knockdown in one line."""

PHRASED_OTHERWISE = (
    "Now: does knocking down HMGCR change LDLR in HepG2?",
    "How does TRIB3 respond to loss of AARS in K562?",
    "Predict whether TRIB3 changes after AARS knockdown in K562 cells.",
    "After silencing AARS by siRNA in K562 cells, is TRIB3 differentially expressed?",
    "Which genes change if AARS is knocked down in K562 cells?",
    "And in RPE1?",
    "Is AARS1 related to ASNS?",
    "Are AARS, TRIB3 and ASNS co-expressed?",
    "What is known about TRIB3 in cancer?",
    "Does AARS regulate TRIB3?",
)
