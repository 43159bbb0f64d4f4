"""Where transformers finds the tokenizer of this folder: in the package alloy-ledger, installed with its extra `models`.

This file only points there. AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True) runs it;
stages.avengers.modeling_avengers.AvengersModel.from_pretrained(folder) gives the same model and runs no file of the folder.
"""

try:
    from stages.avengers.tokenization_avengers import AvengersTokenizer
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"this folder is an ensemble of models, which the package alloy-ledger loads: install alloy-ledger[models] ({error})",
        name=error.name,
    ) from error

__all__ = ["AvengersTokenizer"]
