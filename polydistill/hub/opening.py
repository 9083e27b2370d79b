"""Whether a folder loads and computes for its users; run as a process of its own, since it needs torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polydistill.errors import PolydistillError, library_said
from polydistill.files.jsonfiles import read_json
from polydistill.models.folder import is_stack, model_folder
from polydistill.models.loading import load_sentence_model, quiet_transformers
from polydistill.processes import answer, answer_of

_AUTO = (
    "AutoModelForTokenClassification",
    "AutoModelForSequenceClassification",
    "AutoModelForQuestionAnswering",
    "AutoModelForMaskedLM",
    "AutoModelForSeq2SeqLM",
    "AutoModelForCausalLM",
    "AutoModelForImageTextToText",
    "AutoModelForPreTraining",
)
PROBLEM = "The folder does not load as a user would load it"
WAY_OUT = "Save the model again, or skip this check with `verify=False`."
_TEXT = "Nairobi, London, 12."
_SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN")


def check_opens(folder: Path) -> str:
    """The Auto class that loads a folder, determined in a new process without network and token.

    Raises:
        PolydistillError: It cannot be loaded, lacks weights, or does not compute.
    """
    environment = {key: value for key, value in os.environ.items() if key not in _SECRETS}
    job, offline = {"folder": str(folder)}, {**environment, "HF_HUB_OFFLINE": "1"}
    found = answer_of("polydistill.hub.opening", job, PROBLEM, WAY_OUT, offline)
    if found["problem"]:
        raise PolydistillError(f"{PROBLEM}: {found['problem']}.".replace(str(folder), "it"), WAY_OUT)
    return str(found["class"])


def open_model(folder: Path) -> dict[str, Any]:
    """Loads tokenizer and model and computes one text.

    Returns:
        `class` is the Auto class that loaded it, `problem` what is wrong, or None.
    """
    import torch
    import transformers

    inner = model_folder(folder)
    if is_stack(folder):
        import numpy as np

        from polydistill.stacks.folder import load_stack

        stack = load_stack(folder)
        finite = bool(np.isfinite(stack.encode([_TEXT], language=next(iter(stack.reader.codes), None))).all())
        return {"class": "load_stack", "problem": None if finite else "what it computes is not finite"}
    if not any(inner.glob("*.safetensors")):
        return _open_onnx(inner, sorted((inner / "onnx").glob("*.onnx")))
    config = transformers.AutoConfig.from_pretrained(inner, local_files_only=True, trust_remote_code=False)
    name = (config.architectures or [""])[0]
    auto = next((auto for auto in _AUTO if name in _names(getattr(transformers, auto), config)), "AutoModel")
    tokenizer = transformers.AutoTokenizer.from_pretrained(inner, local_files_only=True, trust_remote_code=False)
    model, info = getattr(transformers, auto).from_pretrained(
        inner, local_files_only=True, trust_remote_code=False, output_loading_info=True
    )
    # A pooler is often not saved, and vectors are usually made without it.
    wrong = sorted(key for key in info["missing_keys"] if "pooler." not in key)
    wrong += sorted(str(key[0]) for key in info["mismatched_keys"])
    if wrong:
        return {"class": auto, "problem": f"weights are missing or do not fit ({len(wrong)}), such as {wrong[0]}"}
    ids = tokenizer(_TEXT, return_tensors="pt")
    if int(ids["input_ids"].max()) >= model.get_input_embeddings().weight.shape[0]:
        return {"class": auto, "problem": "the tokenizer has tokens for which the model has no row"}
    if not config.is_encoder_decoder and not hasattr(config, "vision_config"):
        with torch.no_grad():
            output = model.eval()(**ids)[0]
        if not bool(torch.isfinite(output).all()):
            return {"class": auto, "problem": "what it computes is not finite"}
    if (folder / "modules.json").is_file() and auto == "AutoModel":
        load_sentence_model(folder).to("cpu").encode([_TEXT])
    return {"class": auto, "problem": None}


def _open_onnx(folder: Path, files: Sequence[Path]) -> dict[str, Any]:
    """Loads and computes every file of an export."""
    import numpy as np
    import onnxruntime
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    encoded = tokenizer(_TEXT, return_tensors="np")
    for file in files:
        session = onnxruntime.InferenceSession(file)
        inputs = {node.name: encoded[node.name].astype("int64") for node in session.get_inputs()}
        if not all(np.isfinite(output).all() for output in session.run(None, inputs)):
            return {"class": "InferenceSession", "problem": f"what {file.name} computes is not finite"}
    return {"class": "InferenceSession", "problem": None if files else "it has no weights"}


def _names(auto: Any, config: Any) -> set[str]:
    """Names of the classes that an Auto class may choose for a configuration."""
    classes = auto._model_mapping.get(type(config), ())
    return {c.__name__ for c in (classes if isinstance(classes, (tuple, list)) else [classes])}


def opening(job: Mapping[str, Any]) -> dict[str, Any]:
    """What `open_model` finds in the folder of a job."""
    folder = Path(job["folder"])
    with quiet_transformers():
        try:
            read_json(model_folder(folder) / "config.json")
            return open_model(folder)
        except Exception as error:
            return {"class": None, "problem": f"{type(error).__name__}: {library_said(error)}".rstrip(".")}


if __name__ == "__main__":
    answer(opening)
