"""Parity with the published demo. The expected values were computed by running the published code on these texts."""

import pytest

from bioverify.core import rbio_demo
from bioverify.core.completions import PromptForm, TaggedText, format_score

# completion, keywords, p_yes, go → answer, format, mention, answer reward
PUBLISHED = [
    (
        "<think>AARS1 charges tRNA; ASNS follows.</think> <answer>yes</answer>",
        "AARS1|ASNS",
        0.83,
        False,
        True,
        1.0,
        1.0,
        0.83,
    ),
    (
        "<think>AARS1 charges tRNA; ASNS follows.</think><answer>no</answer>",
        "AARS1|ASNS",
        0.83,
        False,
        False,
        0.909090909091,
        1.0,
        0.17,
    ),
    (
        "<think>We do not know about AARS.</think> <answer>unknown</answer>",
        "AR|ASNS",
        0.25,
        False,
        False,
        1.0,
        0.5,
        0.75,
    ),
    (
        "yes",
        "",
        0.4,
        False,
        True,
        0.090909090909,
        1.0,
        0.4,
    ),
    (
        "",
        "A|B",
        0.5,
        False,
        None,
        0.090909090909,
        0.0,
        0.0,
    ),
    (
        "no and yes",
        "A",
        0.5,
        False,
        None,
        0.090909090909,
        0.0,
        0.0,
    ),
    (
        "<think>a</think> <answer>maybe</answer> yes",
        "A",
        0.7,
        False,
        True,
        0.787878787879,
        0.0,
        0.7,
    ),
    (
        "<gene_info>AARS1: ligase</gene_info> <think>long enough thoughts</think> <answer>Yes</answer>",
        "AARS1",
        0.9,
        True,
        True,
        0.95,
        0.0,
        0.9,
    ),
    (
        "<think><answer>yes</answer></think>",
        "A",
        0.6,
        False,
        True,
        0.909090909091,
        0.0,
        0.6,
    ),
    (
        "<Think>mixed CASE tags here</think> <ANSWER>No</ANSWER>",
        "CASE",
        0.6,
        False,
        False,
        0.636363636364,
        1.0,
        0.4,
    ),
    (
        "<think>one two three four</think> " * 4 + "<answer>yes</answer> <answer>no</answer> trailing",
        "one",
        0.1,
        False,
        True,
        0.722488038278,
        1.0,
        0.1,
    ),
    (
        "<think>" + "word " * 210 + "</think> <answer>yes</answer>",
        "word",
        0.5,
        False,
        True,
        0.909090909091,
        1.0,
        0.5,
    ),
]


# Of each row above, bit by bit: total and format as the demo has them, and format as our own recipes have it, for
# prompts that ask for an answer and for gene info.
TO_THE_LAST_BIT = [
    ("0x1.d47ae147ae148p+1", "0x1.0000000000000p+0", "0x1.0000000000000p+0", "0x1.5555555555555p-1"),
    ("0x1.1fe235fe235fep+1", "0x1.d1745d1745d17p-1", "0x1.0000000000000p+0", "0x1.5555555555555p-1"),
    ("0x1.8000000000000p+1", "0x1.0000000000000p+0", "0x1.0000000000000p+0", "0x1.5555555555555p-1"),
    ("0x1.e4129e4129e42p+0", "0x1.745d1745d1746p-4", "0x1.745d1745d1746p-4", "0x1.1111111111111p-4"),
    ("0x1.745d1745d1746p-4", "0x1.745d1745d1746p-4", "0x1.745d1745d1746p-4", "0x1.1111111111111p-4"),
    ("0x1.745d1745d1746p-4", "0x1.745d1745d1746p-4", "0x1.745d1745d1746p-4", "0x1.1111111111111p-4"),
    ("0x1.180c6980c6980p+1", "0x1.9364d9364d936p-1", "0x1.9364d9364d936p-1", "0x1.05b05b05b05b0p-1"),
    ("0x1.6000000000000p+1", "0x1.e666666666666p-1", "0x1.ba2e8ba2e8ba3p-1", "0x1.0000000000000p+0"),
    ("0x1.0df6b0df6b0dfp+1", "0x1.d1745d1745d17p-1", "0x1.745d1745d1746p-1", "0x1.ddddddddddddep-2"),
    ("0x1.37dac37dac37ep+1", "0x1.45d1745d1745dp-1", "0x1.45d1745d1745dp-1", "0x1.ddddddddddddep-2"),
    ("0x1.ec282d135a657p+0", "0x1.71e9f3c04e647p-1", "0x1.71e9f3c04e647p-1", "0x1.da46102b1da46p-2"),
    ("0x1.745d1745d1746p+1", "0x1.d1745d1745d17p-1", "0x1.d1745d1745d17p-1", "0x1.3333333333333p-1"),
]


@pytest.mark.parametrize(("row", "bits"), [*zip(PUBLISHED, TO_THE_LAST_BIT, strict=True)])
def test_the_published_forms_earn_what_they_earned_to_the_last_bit(row, bits):
    completion, keywords, p_yes, go = row[:4]
    reward = rbio_demo.reward(completion, keywords, p_yes, go=go)
    ours = [format_score(TaggedText(completion).form_checks(form)) for form in PromptForm]
    assert tuple(number.hex() for number in (reward["total"], reward["format"], *ours)) == bits


@pytest.mark.parametrize(
    ("completion", "keywords", "p_yes", "go", "answer", "form", "mention", "answer_reward"), PUBLISHED
)
def test_every_term_equals_the_published_one(completion, keywords, p_yes, go, answer, form, mention, answer_reward):
    reward = rbio_demo.reward(completion, keywords, p_yes, go=go)
    assert reward["answer"] is answer
    assert reward["format"] == pytest.approx(form, abs=1e-12)
    assert reward["mention"] == pytest.approx(mention, abs=1e-12)
    assert reward["answer_reward"] == pytest.approx(answer_reward, abs=1e-12)
    assert reward["total"] == pytest.approx(form + 2 * answer_reward + mention, abs=1e-12)


def test_keywords_may_be_a_sequence():
    completion = "<think>AARS1 and ASNS are named here</think> <answer>yes</answer>"
    assert rbio_demo.reward(completion, ["AARS1", "ASNS"], 0.5) == rbio_demo.reward(completion, "AARS1|ASNS", 0.5)
