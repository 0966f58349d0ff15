"""Read text as samples of token ids, with the tokenizer that belongs to the network."""

from compressor.loading.data.text.texts import load_texts

__all__ = ["load_texts"]
