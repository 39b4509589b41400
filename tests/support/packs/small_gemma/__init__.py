"""A pack for the test server: ComfyUI builds Gemma-2 in the sizes of tests/support/tiny_gemma.py."""

import functools

import comfy.text_encoders.llama as llama

# tiny_gemma.SIZES; the width is that of the tiny PiD checkpoints' captions
llama.Gemma2_2B_Config = functools.partial(
    llama.Gemma2_2B_Config,
    vocab_size=600,
    hidden_size=24,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=2,
    num_key_value_heads=1,
)
NODE_CLASS_MAPPINGS = {}
