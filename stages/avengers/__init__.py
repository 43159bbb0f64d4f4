"""Ensembles as transformers sees them: configuration, tokenizer of bytes, model; loaded from a verified folder (docs/avengers.md)."""
