"""The alloy format as data: which keys stand where, and what their values are. One set of types, for recipes, stages and results alike.

A kind is a word: `text`, `number`, `whole`, `truth`, `any`, `sha256` (`sha256:` and 64 hex digits), `hex` (the digits alone), `a|b` (one
of these), `@name` (an object of `OBJECTS`), `[kind]` (a list), `{kind}` (an object with free keys). A range stands in brackets behind a
number, `!` means required, `?` that null may stand for "not known". The key `*` stands for all others.

Strict mode (`faults`) is for what this program writes and runs: everything else is named, with the nearest known key. What others have
published is read by `ledger.foreign`, which keeps what is not in here.

Source: prior art, the published format of forge-alloy: its schema, its Python model and its published files, which differ from each other.

>>> [fault.text for fault in faults({"name": "x", "version": "1.0.0", "source": {}, "stages": [{"type": "quant"}], "lisence": "mit"})]
["unknown key 'lisence' in the alloy; did you mean 'license'?"]
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

ENSEMBLE = "many-worlds-ensemble"
"""The `type` of an alloy that combines frozen models, and of the stage that does it."""

_ANCHOR = "@anchor"

STAGES: Mapping[str, Mapping[str, str]] = {
    "source-config": {
        "contextLength": "whole(1..)", "inputModalities": "[text]", "tokenizer": "text", "targetBatchSize": "whole(1..)",
        "targetDevices": "[text]",
    },
    "context-extend": {
        "targetLength": "whole(1024..)!", "method": "yarn|ntk|linear|dynamic-ntk!", "trainingDataset": "text",
        "trainingSteps": "whole(1..)",
    },
    "modality": {
        "modality": "vision|audio|multimodal!", "encoderModel": "text!", "projectionArch": "mlp|cross-attention|linear",
        "freezeBase": "truth", "freezeEncoder": "truth", "trainingDataset": "text", "trainingSteps": "whole(1..)",
        "projectionDim": "whole(1..)",
    },
    "prune": {
        "strategy": "text!", "level": "number(0..0.9)!", "minHeadsPerLayer": "whole(1..)", "minKvHeadsPerLayer": "whole(1..)",
        "analysisSteps": "whole(1..)", "perLayerNormalized": "truth", "defragMode": "pad|slice",
    },
    "train": {
        "domain": "text", "dataset": "text", "steps": "whole(1..)", "learningRate": "any", "batchSize": "whole(1..64)",
        "gradientAccumulation": "whole(1..16)", "scheduler": "cosine|linear|constant|constant_with_warmup|polynomial",
        "warmupRatio": "number(0..1)", "weightDecay": "number(0..1)", "maxGradientNorm": "number(0..)", "precision": "bf16|fp16|fp32",
        "sequenceLength": "whole(128..131072)", "optimizations": "[text]",
    },
    "lora": {
        "rank": "whole(1..256)", "alpha": "whole(1..)", "dropout": "number(0..1)", "targetModules": "[text]", "quantize": "truth",
        "quantizeBits": "whole(4..8)", "dataset": "text", "epochs": "whole(1..)", "learningRate": "any", "batchSize": "whole(1..)",
        "mergeAfter": "truth", "teacher": "text", "lossType": "text", "kdTemperature": "number(0..)", "calibrationDataset": "text",
        "loraRank": "whole(1..)", "loraAlpha": "number(0..)", "teacherPrecision": "text", "studentPrecision": "text",
        "mergedAtSave": "truth", "trainableParamsPct": "number(0..100)", "steps": "whole(1..)",
    },
    "compact": {
        "deadThreshold": "number(0..1)", "dormantThreshold": "number(0..1)", "lowThreshold": "number(0..1)",
        "mediumThreshold": "number(0..1)", "highThreshold": "number(0..1)", "targetSizeGb": "number(0..)", "enableQuantization": "truth",
    },
    "recover": {},
    "expert-activation-profile": {
        "calibrationCorpus": "text!", "metric": "text", "maxLength": "whole(1..)", "device": "text", "importanceOutput": "text",
        "calibrationCorpusFile": "text", "calibrationExamples": "whole(1..)", "calibrationTokens": "whole(1..)", "metricVersion": "text",
        "implementation": "text",
    },
    "expert-prune": {
        "keepExperts": "whole(1..)", "keepExpertsPerLayer": "whole(1..)", "originalExpertsPerLayer": "whole(1..)", "strategy": "text",
        "selectionStrategy": "text", "metric": "text", "metricSource": "text", "profileDataset": "text", "profileSteps": "whole(1..)",
        "importanceJson": "text", "calibrationCorpus": "text", "perLayerNormalized": "truth", "prunePct": "number(0..100)",
        "expertTensorLayout": "auto|mlp-experts-unfused|block_sparse_moe-unfused|granite-moe-fused|deepseek-routed-shared",
        "expertsDropped": "whole(0..)", "expertsRenamed": "whole(0..)", "routerSlicedLayers": "whole(0..)", "implementation": "text",
        "rationale": "text",
    },
    "compensation-lora": {
        "teacher": "text!", "calibrationCorpus": "text!", "lossType": "kl_logits|mse_hidden|both", "kdTemperature": "number(0..)",
        "loraRank": "whole(1..)", "loraAlpha": "number(0..)", "targetModules": "[text]", "steps": "whole(1..)", "learningRate": "any",
        "teacherQuant": "8bit|4bit|fp16", "studentQuant": "fp16|4bit|8bit", "mergedAtSave": "truth",
    },
    "quant": {
        "format": "gguf|mlx|safetensors|onnx", "quantTypes": "[text]", "deviceTargets": "[text]", "tool": "text", "tiers": "{any}",
    },
    "package": {
        "format": "text!", "runtime": "text", "optimization": "text", "validateOn": "[text]", "includeTokenizer": "truth",
    },
    "eval": {"benchmarks": "[@asked]!", "passingThreshold": "number(0..100)", "compareToBase": "truth", "calibrationAnchor": _ANCHOR},
    "publish": {
        "org": "text!", "repoNameTemplate": "text", "includeAlloy": "truth", "cardFromBenchmarks": "truth", "tags": "[text]",
        "private": "truth", "cardHash": "sha256",
    },
    "deliver": {},
    "deploy": {"target": "text!", "healthCheck": "truth", "warmup": "truth", "maxConcurrency": "whole(1..)", "autoScale": "truth"},
    "amendment": {},
    "many-worlds-substrate": {
        "substrateDim": "whole(64..2048)", "numGaussians": "whole(16..1024)", "sourceModels": "[text]!", "calibrationCorpus": "text!",
        "trainingSteps": "whole(100..50000)", "learningRate": "any", "lossType": "contrastive|round_trip|both",
    },
    "many-worlds-adapter": {
        "targetModel": "text!", "substratePath": "text!", "adapterRank": "whole(8..512)", "insertLayer": "whole(0..)",
        "trainingSteps": "whole(100..10000)", "learningRate": "any",
    },
    ENSEMBLE: {
        "method": "logit-blend|soft-prompt|cross-attention", "targetModel": "text!", "specialists": "[text]!", "alpha": "number(0..1)",
        "topK": "whole(1..)", "blendStrategy": "specialist-top-k-boost|full-distribution|weighted-average", "vramGb": "number(0..)",
    },
    "team-search": {
        "searchPool": "[text]!", "benchmark": "text!", "numProblems": "whole(1..)", "candidatesEvaluated": "whole(0..)",
        "selectedTeam": "[text]", "divergenceScore": "number", "complementaryProblems": "whole(0..)",
    },
    "gate-profile": {
        "benchmark": "text!", "numProblems": "whole(1..)", "perSpecialistContribution": "{number}", "exportPath": "text",
    },
    "population-prune": {"minContribution": "number(0..1)", "removedModels": "[text]", "vramSavedGb": "number(0..)"},
    "cv-ingest": {"dataset": "text!", "subset": "text", "frameFormat": "text", "maxSequences": "whole(1..)"},
    "cv-eval": {"pipeline": "text!", "pipelineConfig": "{any}", "benchmarks": "[@asked]"},
}  # fmt: skip
"""Every stage type of the published format, with its keys. Whether somebody can run one is another question: see the plug-ins."""

STAGE_KEYS = {"type": "text!", "id": "text", "inputs": "{text}", "matrix": "{[any]}", "notes": "text"}
"""What every stage may have."""

OBJECTS: Mapping[str, Mapping[str, str]] = {
    "alloy": {
        "name": "text!", "version": "text", "description": "text", "userSummary": "text", "author": "text", "tags": "[text]",
        "license": "text", "type": ENSEMBLE, "source": "@source", "target": "@target", "stages": "[any]", "cycles": "whole(1..)",
        "hardware": "@hardware", "outputs": "@outputs", "search": "any", "results": "@results", "receipt": "@receipt",
        "sourceAlloyId": "text", "forgedModelIds": "[text]", "limitations": "[text]", "methodologyPaperUrl": "text",
        "calibrationCorpora": "[@corpus]", "priorMetricBaselines": "[@baseline]", "acceptanceCriteria": "@criteria",
        "derivedFrom": "@derived", "domains": "[text]", "integrity": "@integrity", "materials": "{sha256}", "recipeHash": "sha256",
    },
    "source": {
        "baseModel": "text", "architecture": "text", "revision": "text", "isMoE": "truth", "totalExperts": "whole(1..)",
        "activeParamsB": "number(0..)", "contextLength": "whole(1..)", "firstKDenseReplace": "whole(0..)", "hiddenSize": "whole(1..)",
        "intermediateSize": "whole(1..)", "license": "text", "moeIntermediateSize": "whole(1..)", "numActivatedExperts": "whole(1..)",
        "numExpertsPerLayer": "whole(1..)", "numLayers": "whole(1..)", "numSharedExperts": "whole(0..)", "totalParamsB": "number(0..)",
        "target": "@member", "specialists": "[@member]",
    },
    "member": {"baseModel": "text!", "role": "text", "frozen": "truth", "revision": "text", "architecture": "text"},
    "target": {
        "contextLength": "whole(1..)", "modalities": "[text]", "domain": "text", "pruneRatio": "number(0..1)", "experts": "whole(1..)",
        "outputFormats": "[text]", "quantTypes": "[text]", "targetDevices": "[text]", "deployTo": "text", "benchmarks": "[text]",
        "publish": "any",
    },
    "hardware": {
        "minVramGb": "number(0..)", "recommendedVramGb": "number(0..)", "estimatedDurationMinutes": "number(0..)", "supportsCPU": "truth",
        "testedOn": "[text]", "deviceTargets": "[text]",
    },
    "outputs": {"produces": "[@product]"},
    "product": {"type": "safetensors|gguf|mlx|lora-adapter|model-card|alloy!", "description": "text"},
    "corpus": {
        "id": "text", "name": "text", "path": "text", "sha256": "text", "examples": "whole(0..)", "tokens": "whole(0..)",
        "distributionSummary": "any",
    },
    "baseline": {
        "id": "text", "name": "text", "metric": "any", "evaluation": "{any}", "prune": "{any}", "results": "{any}", "samplesPath": "text",
        "outcome": "shipped|negative_baseline|superseded", "supersededBy": "text", "methodologyAnchor": "text", "lessonAnchor": "text",
        "notes": "text",
    },
    "criteria": {
        "benchmarks": "{any}", "hardware": "{any}", "integrity": "{any}", "notes": "text", "perplexity": "@perplexityLimit",
    },
    "perplexityLimit": {"maxIncreasePct": "number(0..)"},
    "derived": {"repo": "text", "alloyHash": "text?", "kind": "text"},
    "asked": {
        "name": "text!", "subset": "text", "nShot": "whole(0..)", "submitToLeaderboard": "truth", "samplesPath": "text",
        "baseSamplesPath": "text", "calibrationAnchor": _ANCHOR, "notes": "text", "metric": "text", "calibrated": "truth",
    },
    "anchor": {
        "model": "text", "publishedScore": "number?", "publishedSource": "text", "measuredScore": "number?", "measuredOn": "text",
        "delta": "number?", "tolerance": "any", "passed": "truth?",
    },
    "results": {
        "completedAt": "text", "durationMinutes": "number(0..)", "baselinePerplexity": "number", "finalPerplexity": "number",
        "improvementPct": "number", "finalSizeGb": "number(0..)", "finalParams": "text", "forgedParamsB": "number(0..)",
        "activeParamsB": "number(0..)", "benchmarks": "[@benchmark]", "hardwareVerified": "[@device]", "samples": "[@sample]",
        "integrity": "@integrity", "highlights": "[text]", "layerImportance": "[any]", "lossFunctionAblation": "[any]",
        "fourRunProgression": "[any]", "stageCheckpoints": "{any}", "actions": "[sha256]", "artifacts": "[@artifact]",
        "comparison": "{any}",
    },
    "artifact": {"stage": "text!", "output": "text!", "digest": "sha256!", "sizeBytes": "whole(0..)"},
    "benchmark": {
        "name": "text!", "subset": "text", "metric": "text", "score": "number", "baseScore": "number", "delta": "number",
        "calibrated": "truth", "withinCalibrationTolerance": "truth", "samplesPath": "text", "baseSamplesPath": "text",
        "resultHash": "sha256", "baseResultHash": "sha256", "metrics": "{any}", "submittedToLeaderboard": "truth",
        "scoreCorrection": "@correction", "subject": "text", "digest": "sha256", "entry": "whole(0..)", "*": "any",
    },
    "correction": {"previousValue": "number", "previousBaseScore": "number", "correctedAt": "text", "reason": "text"},
    "device": {
        "device": "text!", "format": "text", "vramGb": "number(0..)", "sizeGb": "number(0..)", "tokensPerSec": "number(0..)",
        "memoryUsageGb": "number(0..)", "verified": "truth",
    },
    "sample": {"label": "text!", "prompt": "text!", "completion": "text!", "baselineCompletion": "text"},
    "integrity": {
        "trustLevel": "self-attested|verified|enclave!", "code": "@code", "modelHash": "sha256", "alloyHash": "sha256",
        "fileHashes": "[@file]", "datasets": "[@dataset]", "nonce": "text", "audience": "text", "signature": "@signature",
        "anchor": "{any}", "certifications": "[@certification]", "attestedAt": "text", "parentAlloyHash": "text?",
    },
    "code": {
        "runner": "text!", "version": "text!", "binaryHash": "sha256", "sourceHash": "sha256", "commit": "text", "sourceRepo": "text",
        "environment": "text", "environmentHash": "sha256",
    },
    "file": {"filename": "text!", "sha256": "hex!", "size": "whole(0..)", "gitOid": "text", "xetHash": "text"},
    "dataset": {"name": "text!", "version": "text", "hash": "sha256!", "source": "text"},
    "signature": {
        "algorithm": "ES256|ES384|EdDSA|ML-DSA-65|ML-DSA-87|SLH-DSA-128s!", "publicKey": "text!", "value": "text!", "keyId": "text",
        "credentialId": "text", "certificateChain": "[text]", "keyRegistry": "text",
    },
    "certification": {
        "adapter": "text!", "version": "text!", "domain": "text!", "result": "{any}", "adapterHash": "sha256", "signature": "@signature",
        "nonce": "text", "sourceRepo": "text", "commit": "text", "attestedAt": "text!",
    },
    "receipt": {
        "publications": "[@publication]", "verifyUrl": "text", "alloyHash": "sha256", "cardHash": "sha256", "issuedAt": "text!",
        "ledger": "{any}",
    },
    "publication": {"target": "text", "url": "text", "publishedAt": "text", "downloads": "whole(0..)"},
}  # fmt: skip
"""Name of an object -> its keys. Of a benchmark's result the further keys are those of what was signed, which is compared with it."""

WRITTEN = ("results", "receipt", "materials", "recipeHash", "integrity")
"""What a run writes into an alloy: no part of what was asked for, so a recipe is not judged by it."""

_KEY = re.compile(r"[a-z][A-Za-z0-9]*\Z")
_VERSION = re.compile(r"\d+\.\d+\.\d+\Z")
_SHA256, _HEX = re.compile(r"sha256:[0-9a-f]{64}\Z"), re.compile(r"[0-9a-f]{64}\Z")
_KIND = re.compile(r"(?P<base>.*?)(?:\((?P<low>[\d.]*?)\.\.(?P<high>[\d.]*)\))?(?P<marks>[!?]*)\Z")
_PLAIN: Mapping[str, tuple[type, re.Pattern[str] | None, str]] = {
    "any": (object, None, ""),
    "text": (str, None, "text"),
    "truth": (bool, None, "true or false"),
    "sha256": (str, _SHA256, "sha256: and 64 hex digits"),
    "hex": (str, _HEX, "64 hex digits"),
}
_MAX_FAULTS = 100


@dataclass(frozen=True, slots=True)
class Fault:
    """One place where an alloy is not what the format says.

    Attributes:
        path: keys and positions from the top. text: what is wrong there, for people.
        missing: something should be there and is not; nothing wrong is there.
    """

    path: tuple[str | int, ...]
    text: str
    missing: bool = False

    def __str__(self) -> str:
        return f"{where(self.path)}: {self.text}" if self.path else self.text


def where(path: Iterable[str | int]) -> str:
    """A path as people write it.

    >>> where(("stages", 1, "keepExperts"))
    'stages[1].keepExperts'
    """
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def is_ensemble(value: Mapping[str, Any]) -> bool:
    """Whether an alloy combines frozen models: its source names a target and specialists instead of a base model."""
    source = value.get("source")
    return value.get("type") == ENSEMBLE or (isinstance(source, dict) and "specialists" in source)


def faults(value: Mapping[str, Any], *, what: str = "the alloy", written: bool = True, stages: bool = True) -> list[Fault]:
    """Everything in an alloy that is not of the format, in its order; at most a hundred.

    Args:
        value: the whole file as JSON.
        what: what it is called in the texts.
        written: whether to judge what a run wrote into it, too (`WRITTEN`).
        stages: whether to judge the keys of each stage by the format. Whoever runs stages leaves that to those that run: then a key must
            only have the form that all have.
    """
    found: list[Fault] = []
    for fault in _faults(value, what, written, stages):
        found.append(fault)
        if len(found) == _MAX_FAULTS:
            break
    return found


def _faults(value: Mapping[str, Any], what: str, written: bool, stages: bool) -> Iterator[Fault]:
    judged = {key: item for key, item in value.items() if written or key not in WRITTEN}
    yield from _object(judged, "alloy", (), what)
    version = value.get("version")
    if isinstance(version, str) and not _VERSION.match(version):
        yield Fault(("version",), f"{version!r} is not of the form 1.2.3")
    listed = value.get("stages")
    if listed == [] or (listed is None and not is_ensemble(value)):
        yield Fault(("stages",), "there must be at least one stage", True)
    source = value.get("source")
    if is_ensemble(value) and isinstance(source, dict):
        for key in ("target", "specialists"):
            if not source.get(key):
                yield Fault(("source",), f"an ensemble names its {key}", True)
        if "baseModel" in source:
            yield Fault(("source", "baseModel"), "an ensemble has a target and specialists instead")
    for number, item in enumerate(listed if isinstance(listed, list) else ()):
        if stages:
            yield from stage_faults(item, ("stages", number))
        elif isinstance(item, dict) and isinstance(kind := item.get("type"), str):
            allowed = (*STAGE_KEYS, *STAGES.get(kind, ()))
            for key in item:
                if not _KEY.match(key):
                    yield Fault(("stages", number, key), f"unknown key {key!r} in {kind}{_nearest(key, allowed)}")


def stage_faults(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[Fault]:
    """What in one stage is not of the format: an unknown type, an unknown key, a value of another kind."""
    kind = value.get("type") if isinstance(value, dict) else None
    if not isinstance(kind, str):
        yield Fault(path, "each stage is an object with a type")
    elif kind not in STAGES:
        yield Fault((*path, "type"), f"unknown stage type {kind!r}{_nearest(kind, STAGES)}")
    else:
        given = set(value) | set(value["matrix"] if isinstance(value.get("matrix"), dict) else ())
        yield from _fields(value, {**STAGE_KEYS, **STAGES[kind]}, kind, path, given)


def _object(value: Mapping[str, Any], name: str, path: tuple[str | int, ...], what: str = "") -> Iterator[Fault]:
    yield from _fields(value, OBJECTS[name], what or where(path), path, set(value))


def _fields(
    value: Mapping[str, Any], allowed: Mapping[str, str], what: str, path: tuple[str | int, ...], given: set[str]
) -> Iterator[Fault]:
    for key, item in value.items():
        if key in allowed:
            yield from _value(item, allowed[key], (*path, key))
        elif "*" not in allowed:
            yield Fault((*path, key), f"unknown key {key!r} in {what}{_nearest(key, allowed)}")
    for key, kind in allowed.items():
        if kind.endswith("!") and key not in given:
            yield Fault(path, f"{what} needs {key}", True)


def _nearest(key: str, allowed: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(key), tuple(allowed), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def _value(value: Any, kind: str, path: tuple[str | int, ...]) -> Iterator[Fault]:
    match = _KIND.match(kind)
    assert match is not None  # the pattern takes every text
    base = match["base"]
    if value is None and base != "any":
        if "?" not in match["marks"]:
            yield Fault(path, "null; leave the key out where there is nothing to say")
    elif base.startswith("["):
        if not isinstance(value, list):
            yield Fault(path, f"must be a list; it is {_shown(value)}")
            return
        for number, item in enumerate(value):
            yield from _value(item, base[1:-1], (*path, number))
    elif base.startswith(("{", "@")):
        if not isinstance(value, dict):
            yield Fault(path, f"must be an object; it is {_shown(value)}")
        elif base.startswith("@"):
            yield from _object(value, base[1:], path)
        else:
            for key, item in value.items():
                yield from _value(item, base[1:-1], (*path, key))
    elif (wrong := _wrong(value, base, match["low"], match["high"])) is not None:
        yield Fault(path, wrong)


def _wrong(value: Any, base: str, low: str | None, high: str | None) -> str | None:
    """What is wrong with a plain value, or None."""
    if base in ("number", "whole"):
        if isinstance(value, bool) or not isinstance(value, int if base == "whole" else (int, float)):
            return f"must be a {'whole ' if base == 'whole' else ''}number; it is {_shown(value)}"
        if (low and value < float(low)) or (high and value > float(high)):
            return f"must be {' and '.join(filter(None, (low and f'at least {low}', high and f'at most {high}')))}; it is {value}"
        return None
    if base not in _PLAIN:
        return None if value in base.split("|") else f"must be {base.replace('|', ', ')}; it is {_shown(value)}"
    kind, pattern, words = _PLAIN[base]
    fits = isinstance(value, kind) and (pattern is None or pattern.match(str(value)))
    return None if fits else f"must be {words}; it is {_shown(value)}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + ".."
