"""A policy that says one sentence, whatever it is asked: what becomes of a completion on its way can then be seen.

Each word is one token and one axis of the hidden state; the layers add nothing, and the output of each word's axis is
the next word of the sentence.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

QUESTION = "Is a knockdown of P1 in k562 cells likely to result in differential expression of G1?"
SENTENCE = "<think> without P1 there is little of G1 </think> <answer> yes </answer> <end>"
TAGS = ["<think>", "</think>", "[THINK]", "[/THINK]", "<answer>", "</answer>"]
START = "<assistant>"
SURE = 30.0


def make_parrot(folder: Path, sentence: str = SENTENCE, *, opened: str = "", special_tags: bool = False) -> Path:
    """A checkpoint that says ``sentence``. ``opened``: what its chat template ends with, which it goes on from."""
    words = ["<unk>", "<pad>", START, "<end>", *TAGS, *QUESTION.replace("?", " ?").split(), *sentence.split()]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if special_tags:
        tokenizer.add_special_tokens([AddedToken(tag, special=True) for tag in TAGS])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", eos_token="<end>", padding_side="right"
    )
    fast.chat_template = (
        "{% for message in messages %}{{ message['content'] }} {% endfor %}"
        f"{{% if add_generation_prompt %}}{START} {opened}{{% endif %}}"
    )
    # An even number of axes for each of two heads.
    size = -(-len(vocabulary) // 4) * 4
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(vocabulary),
            hidden_size=size,
            intermediate_size=4,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            bos_token_id=None,
            eos_token_id=fast.eos_token_id,
            pad_token_id=fast.pad_token_id,
            tie_word_embeddings=False,
        )
    )
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "norm" not in name:
                weights.zero_()
        model.model.embed_tokens.weight[range(len(vocabulary)), range(len(vocabulary))] = 1
        said = [opened.split()[-1] if opened else START, *sentence.split()]
        for word, following in pairwise(said):
            model.lm_head.weight[vocabulary[following], vocabulary[word]] = SURE
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder
