"""Run recorded decoding cases: python tests/golden/run.py DIR [--method M] [--verbose]

DIR holds cases/*.jsonl, models/ and filters/ in the format of tests/golden. Prints matched,
deliberate and mismatched counts per method; exit status 1 if any case is mismatched.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import block_diffusion  # noqa: E402, F401  (registers its methods)
import caches  # noqa: E402, F401  (registers its methods)
import d2_caches  # noqa: E402, F401
import decoders  # noqa: E402, F401  (registers its methods)
import lengths  # noqa: E402, F401
import llada2  # noqa: E402, F401
import lopa  # noqa: E402, F401
import stable_diffcoder  # noqa: E402, F401
import windows  # noqa: E402, F401  (registers its methods)
from harness import Runner, read_cases  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--method", help="run this method's cases only")
    parser.add_argument("--verbose", action="store_true", help="name every deliberate case")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="each Nth case only (1)")
    arguments = parser.parse_args(argv)
    if arguments.every < 1:
        parser.error(f"argument --every: {arguments.every}: give at least 1")
    runner, counts = Runner(arguments.folder), {}
    for case in islice(read_cases(arguments.folder, arguments.method), 0, None, arguments.every):
        result = runner.judge(case)
        counts.setdefault(result.method, Counter())[result.verdict] += 1
        if result.verdict == "mismatched" or (arguments.verbose and result.detail):
            print(f"{result.verdict} {result.id}: {result.detail}", flush=True)
    if not counts:
        print(f"no cases found in {arguments.folder}", file=sys.stderr)
        return 2
    print(f"{'method':20} matched deliberate mismatched")
    for method, count in sorted(counts.items()):
        row = (count["matched"], count["deliberate"], count["mismatched"])
        print(f"{method:20} {row[0]:7} {row[1]:10} {row[2]:10}")
    return int(any(count["mismatched"] for count in counts.values()))


if __name__ == "__main__":
    sys.exit(main())
