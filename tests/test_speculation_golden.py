"""The recorded DiffuSpec components: adaptive length, path search, proxy, verification, draft."""

import json
import sys
from pathlib import Path

import pytest

import dlmdecode

GOLDEN = Path(__file__).parent / "golden"
sys.path.insert(0, str(GOLDEN))

from diffuspec_quirks import JUDGES  # noqa: E402

METHODS = sorted(JUDGES)


@pytest.fixture(scope="module")
def models():
    return {name: dlmdecode.load(GOLDEN / "models" / name) for name in ("dream-micro",)}


@pytest.mark.parametrize("method", METHODS)
def test_recorded_components_are_reproduced(method, models):
    lines = (GOLDEN / "cases" / f"{method}.jsonl").read_text().splitlines()
    cases = [json.loads(line) for line in lines]
    details = {
        case["id"]: JUDGES[method](case, GOLDEN, models.get(case["model"])) for case in cases
    }
    assert len(details) >= 16
    assert {name: detail for name, detail in details.items() if detail} == {}
