"""Any BPE language model as a predictor of bytes: its distribution of the next byte, exactly, whatever its tokenizer (docs/ensemble.md)."""
