"""Have a model answer one block of questions: log-likelihoods of choices, or text, one question at a time. Nothing is scored here.

A model tree whose config.json has a `model_type` that a package registered under `alloy_ledger.answerers` is loaded by that (an ensemble,
say); every other by transformers.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages import plugins, questions
from stages.errors import InputError
from stages.hf_model import LoadIn
from stages.questions import Answerer, Answers
from stages.stage import Context, Leaf, Outcome
from store import canonical, tree
from store.digest import Digest
from store.errors import CanonicalError

DEFAULT = "transformers"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionBlock:
    """How to answer. Every field can change an answer.

    Attributes:
        max_bytes: after which generated text is cut; 0 where only choices are compared.
        stop: texts before which generated text ends.
    """

    max_bytes: int = 0
    stop: tuple[str, ...] = ()
    load_in: LoadIn = "auto"


STAGE = Leaf(
    name="question-block",
    version=1,
    spec=QuestionBlock,
    inputs=("model", "questions"),
    outputs=("answers",),
    purity="E",
    run="stages.question_block:run",
    share=("model",),
)


def run(spec: QuestionBlock, inputs: Mapping[str, Digest], context: Context) -> Outcome:
    """Load the model, once per worker, and ask.

    Raises:
        InputError: a model that does not load, or a question that it cannot answer.
    """
    key = f"question-block:{inputs['model']}:{spec.load_in}"
    if key not in context.memo:
        context.memo[key] = answerer(inputs["model"], context, spec.load_in)
    asked = questions.parse_block(context.store.read(inputs["questions"]))
    started = time.perf_counter()
    answers = questions.answer(asked, context.memo[key], max_bytes=spec.max_bytes, stop=spec.stop, progress=context.progress)
    context.note("questions_per_s", f"{len(asked) / max(time.perf_counter() - started, 1e-9):.2f}")
    settings = {"maxBytes": spec.max_bytes, "stop": list(spec.stop), "loadIn": spec.load_in}
    return Outcome({"answers": context.store.put(Answers(asked=inputs["questions"], settings=settings, answers=answers).to_bytes())})


def answerer(model: Digest, context: Context, load_in: LoadIn) -> Answerer:
    """What answers for a model tree.

    Raises:
        InputError: the tree has no config.json, or does not load.
    """
    entry = next((item for item in tree.load(context.store, model).entries if item.path == "config.json"), None)
    if entry is None:
        raise InputError(f"model {model.short} has no config.json; questions are for model folders as transformers lays them out")
    try:
        config: Any = canonical.loads(context.store.read(entry.digest))
    except CanonicalError as error:
        raise InputError(f"model {model.short}: config.json: {error}") from error
    kind = config.get("model_type") if isinstance(config, dict) else None
    loader = plugins.load("answerers", kind if kind in plugins.names("answerers") else DEFAULT)
    found: Answerer = loader(model, context, load_in)
    return found
