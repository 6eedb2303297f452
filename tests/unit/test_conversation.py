from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioverify.core.answers import parse_answer
from bioverify.core.completions import TaggedText, format_score
from bioverify.core.conversation import (
    THOUGHT_MARKS,
    Completion,
    ConversationError,
    Turn,
    opened_thought,
    read_completion,
    read_prompt,
    whole_completion,
)

T = "AARS charges tRNA, so TRIB3 follows."
ANSWER = "<answer>yes</answer>"
WHOLE = f"<think>{T}</think>\n{ANSWER}"


def assistant(content, **beside):
    return {"role": "assistant", "content": content, **beside}


@pytest.mark.parametrize(
    "given",
    [
        assistant(ANSWER, reasoning_content=T),
        assistant(ANSWER, reasoning=T),
        assistant(ANSWER, thinking=T),
        assistant(ANSWER, reasoning=T, reasoning_content=T),
        assistant(ANSWER, reasoning={"text": T}),
        assistant(ANSWER, reasoning_content=f"<think>{T}</think>"),
        assistant([{"type": "thinking", "thinking": T}, {"type": "text", "text": ANSWER}]),
        assistant([{"type": "thinking", "thinking": [{"type": "text", "text": T}]}, {"type": "text", "text": ANSWER}]),
        assistant(ANSWER, reasoning={"content": T}),
        assistant(ANSWER, reasoning_content=T, reasoning=f"{T}\n"),
        assistant(ANSWER, reasoning_details=[{"type": "reasoning.text", "text": T, "signature": "x"}]),
        assistant(ANSWER, reasoning=T, reasoning_details=[{"type": "reasoning.summary", "summary": T}]),
        assistant(ANSWER, reasoning_content=T, thinking_blocks=[{"type": "thinking", "thinking": T}]),
        assistant(ANSWER, thinking_blocks=[{"type": "thinking", "thinking": T}, {"type": "redacted_thinking"}]),
        assistant([{"text": T, "thought": True}, {"text": ANSWER}]),
        [{"type": "reasoning", "content": [{"type": "reasoning_text", "text": T}], "summary": []}, assistant(ANSWER)],
        [
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": T}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": ANSWER}]},
        ],
        WHOLE,
        assistant(WHOLE),
        [assistant(WHOLE, name="model")],
        [assistant([{"type": "text", "text": WHOLE}, {"type": "image_url", "image_url": {}}])],
        [
            assistant(None, reasoning=T, tool_calls=[{}]),
            {"role": "tool", "content": "<answer>no</answer>"},
            assistant(ANSWER),
        ],
        [assistant(f"<think>{T}</think>"), {"role": "tool", "content": "<answer>no</answer>"}, assistant(ANSWER)],
    ],
)
def test_a_split_completion_reads_as_the_whole_one(given):
    assert read_completion(given).text == WHOLE


def test_reasoning_goes_in_front_of_a_thought_that_is_there_already():
    given = assistant(f"<think>More.</think> {ANSWER}", reasoning=T)
    assert read_completion(given).text == f"<think>{T}\nMore.</think> {ANSWER}"
    assert whole_completion(f"More.</think> {ANSWER}", reasoning=T) == f"<think>{T}\nMore.</think> {ANSWER}"


def test_what_a_tool_says_is_never_the_completion():
    given = [assistant("I look it up."), {"role": "tool", "content": ANSWER}]
    assert read_completion(given) == Completion("", "I look it up.")
    call = [{"type": "function_call", "name": "f"}, {"type": "function_call_output", "output": ANSWER}]
    assert read_completion([*call, assistant("Hm.")]).final == "Hm."


def test_an_earlier_step_is_a_thought_at_most():
    given = [assistant("<answer>no</answer>"), {"role": "user", "content": "Sure?"}, assistant(ANSWER)]
    read = read_completion(given)
    assert read == Completion("<answer>no</answer>", ANSWER)
    assert parse_answer(read.text) is True
    last_is_a_call = [assistant(ANSWER), assistant(None, tool_calls=[{}])]
    assert not isinstance(parse_answer(read_completion(last_is_a_call).text), bool)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "not null"),
        (3, "not int"),
        (b"yes", "not bytes"),
        ([], "no message"),
        ([{"role": "tool", "content": ANSWER}], "found: tool"),
        ([None], r"completion\[0\]: a message"),
        ([{"role": "robot", "content": ""}], "role: one of system"),
        ([{"content": ""}], "not None"),
        (assistant(3), r"completion\[0\].content"),
        (assistant([3]), r"content\[0\]"),
        (assistant("", reasoning=3), r"completion\[0\].reasoning"),
    ],
)
def test_what_is_no_completion_is_refused_by_name(given, said):
    with pytest.raises(ConversationError, match=said):
        read_completion(given)


def test_a_prompt_is_read_in_every_form_of_messages():
    given = [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "name": "me",
            "content": [{"type": "text", "text": "Is it"}, {"type": "input_text", "text": " so?"}],
        },
        assistant(None, tool_calls=[{}]),
        {"role": "tool", "content": "no"},
    ]
    turns = [Turn("system", "Be brief."), Turn("user", "Is it so?"), Turn("assistant", ""), Turn("tool", "no")]
    assert read_prompt(given) == turns
    assert read_prompt("Is it so?") == [Turn("user", "Is it so?")]
    with pytest.raises(ConversationError, match="not null"):
        read_prompt(None)


@pytest.mark.parametrize(
    "prompt", ["…<|im_start|>assistant\n<think>\n", "Assistant: <think>", "[THINK]", "<thinking> "]
)
def test_a_thought_that_the_prompt_opens_is_put_back(prompt):
    whole = whole_completion(f"{T}</think>\n{ANSWER}", prefix=opened_thought(prompt))
    assert format_score(TaggedText(whole).form_checks()) == 1.0
    assert TaggedText(whole).mention_share(["AARS", "TRIB3"]) == 1.0
    assert whole_completion(whole, prefix=opened_thought(prompt)) == whole


@pytest.mark.parametrize("prompt", ["", "Is it so?", "<think>\n\n</think>\n\n", "Write <think> first."])
def test_a_prompt_that_leaves_no_thought_open_gives_nothing_back(prompt):
    assert opened_thought(prompt) == ""


def test_text_before_a_lone_end_of_thoughts_is_a_thought():
    read = TaggedText(f"{T}\n</think>\n{ANSWER}")
    assert read.mention_share(["AARS", "TRIB3"]) == 1.0
    # The form checks are the published ones.
    assert read.form_checks()["has_think"] == 0.0


@pytest.mark.parametrize(("opening", "closing"), THOUGHT_MARKS)
def test_every_familys_thoughts_are_thoughts(opening, closing):
    assert whole_completion(f"{opening}{T}{closing}\n{ANSWER}") == WHOLE
    cut = whole_completion(f"{opening}{T} {ANSWER}")
    assert not isinstance(parse_answer(cut), bool)


def test_the_channels_of_harmony_are_read():
    final = f"<|start|>assistant<|channel|>final<|message|>\n{ANSWER}<|return|>"
    assert whole_completion(f"<|channel|>analysis<|message|>{T}<|end|>{final}") == WHOLE
    assert whole_completion(f"analysis{T}assistantfinal\n{ANSWER}") == WHOLE


def test_a_mark_that_is_only_named_opens_nothing():
    text = f"I was told to use <thinking> tags. {ANSWER}"
    assert whole_completion(text) == text
    both = f"<think>Not <reasoning>, {T}</think> {ANSWER}"
    assert whole_completion(both) == both
    for half in (f"<think>{T} [THINK]so[/THINK] {ANSWER}", f"{T}</think> [THINK]so[/THINK] {ANSWER}"):
        assert whole_completion(half) == half


@pytest.mark.parametrize("tail", ["<|im_end|>", "</s>", "<pad><pad>", "<|im_end|>\n<|endoftext|>", "<|eot_id|> "])
def test_marks_of_the_tail_are_stripped(tail):
    assert whole_completion(WHOLE + tail).rstrip() == WHOLE
    assert whole_completion(tail).strip() == ""
    assert whole_completion(WHOLE + tail, as_published=True) == WHOLE + tail


FRAGMENTS = st.lists(
    st.one_of(
        st.sampled_from([mark for marks in THOUGHT_MARKS for mark in marks]),
        st.sampled_from(
            ["<think>", "</think>", "<answer>", "</answer>", "</s>", "<pad>", "\n", "yes", "assistantfinal"]
        ),
        st.sampled_from(["analysis", "<|channel|>final<|message|>", "<|start|>assistant", "<THINK>", "<|im_end|>"]),
        st.text(max_size=8),
    ),
    max_size=10,
).map("".join)


@given(FRAGMENTS, FRAGMENTS)
def test_a_whole_completion_stays_as_it_is(final, reasoning):
    whole = whole_completion(final)
    assert whole_completion(whole) == whole
    assert parse_answer(whole) == parse_answer(whole_completion(whole))
    whole_completion(final, reasoning=reasoning)


PLAIN = st.text(alphabet=st.characters(exclude_characters="<>[]◁▷|"), max_size=60).filter(lambda text: text.strip())


@given(
    PLAIN.filter(lambda text: not text.startswith("analysis")),
    st.sampled_from(["yes", "no", "perhaps"]),
    st.sampled_from(["", " ", "\n\n"]),
)
def test_a_split_reasoning_reads_as_the_joined_text(reasoning, word, gap):
    final = f"{gap}<answer>{word}</answer>"
    joined = TaggedText(f"<think>{reasoning}</think>{final}")
    for key in ("reasoning_content", "reasoning", "thinking"):
        split = TaggedText(read_completion(assistant(final, **{key: reasoning})).text)
        assert split.form_checks() == joined.form_checks()
        assert split.thoughts == joined.thoughts
        assert parse_answer(split.text) == parse_answer(joined.text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["assistant", "user", "text"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "reasoning", "thinking", "summary"]), inner
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_whatever_is_given_is_read_or_refused_by_name(given):
    for read in (read_completion, read_prompt):
        with suppress(ConversationError):
            read(given)


@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        ("<thinking>", "</thinking>"),
        ("<thought>", "</thought>"),
        ("<reasoning>", "</reasoning>"),
        ("[THINK]", "[/THINK]"),
        ("<seed:think>", "</seed:think>"),
        ("◁think▷", "◁/think▷"),
        ("<|begin_of_thought|>", "<|end_of_thought|>"),
        ("<|START_THINKING|>", "<|END_THINKING|>"),
        ("<longcat_think>", "</longcat_think>"),
        ("<|inner_prefix|>", "<|inner_suffix|>"),
        ("<|channel>thought", "<channel|>"),
        ("<unused94>thought", "<unused95>"),
        ("<|channel|>analysis<|message|>", "<|end|>"),
    ],
)
def test_each_familys_marks_of_a_thought_are_known_to_the_letter(opening, closing):
    assert whole_completion(f"{opening}{T}{closing}\n{ANSWER}") == WHOLE


@pytest.mark.parametrize(
    "mark",
    [
        *("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "<|eom_id|>", "<|return|>", "<|end|>"),
        *("<|END_RESPONSE|>", "<｜end▁of▁sentence｜>", "</s>", "<pad>", "<eos>", "<end_of_turn>", "<|pad|>"),
        *("<|finetune_right_pad_id|>", "[PAD]", "<unk>", "<|END_OF_TURN_TOKEN|>", "<seed:eos>", "<turn|>", "<|eot|>"),
        "<|role_end|>",
    ],
)
def test_each_mark_that_a_decoder_leaves_behind_is_taken_off_and_no_other_text_is(mark):
    assert whole_completion(f"{WHOLE}{mark}") == WHOLE
    assert whole_completion(f"{WHOLE}{mark}\n{mark} ").strip() == WHOLE
    assert whole_completion(f"{WHOLE}X{mark}X") == f"{WHOLE}X{mark}X"
    assert whole_completion(f"{WHOLE}{mark}", as_published=True) == f"{WHOLE}{mark}"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "completion: no message of the assistant; found: no message"),
        ([{"role": "tool", "content": ANSWER}], "completion: no message of the assistant; found: tool"),
        (
            [{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}, {"role": "user", "content": "c"}],
            "completion: no message of the assistant; found: tool, user",
        ),
        ([None], "completion[0]: a message with role and content, not null"),
        (assistant(None), "completion[0].content: a text; found none, and no reasoning beside it"),
        (assistant([]), "completion[0].content: a text; found none, and no reasoning beside it"),
        ([{"type": "reasoning", "text": 7}], "completion[0].text: a text, not int ('7')"),
        ([{"type": "reasoning", "content": 7.5}], "completion[0].content: a text, not float ('7.5')"),
    ],
)
def test_a_refusal_says_the_place_and_what_was_found(given, said):
    with pytest.raises(ConversationError) as caught:
        read_completion(given)
    assert str(caught.value).startswith(said), str(caught.value)
