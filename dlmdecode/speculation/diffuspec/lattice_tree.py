"""A tree of the lattice's likeliest paths, where a wide forward of the verifier costs little."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_type_hints

import torch

from dlmdecode import ops
from dlmdecode.checks import Count, Probability, conform, require
from dlmdecode.speculation.diffuspec.lattice import TopM, as_tensor, draft_end
from dlmdecode.speculation.diffuspec.ngram import NGram
from dlmdecode.speculation.diffuspec.path_search import BestTokens, PathSearch, Proxy, last
from dlmdecode.speculation.tree import Draft, Nodes


@dataclass(frozen=True)
class LatticeTree:
    """The nodes of a draft's lattice that are likeliest to be accepted (as in SpecInfer, arXiv
    2305.09781, and OPT-Tree, 2406.17276), each scored by the drafter and an n-gram.

    Attributes:
        nodes: tokens of the tree.
        num_candidates: the most tokens a position offers.
        lam: weight of the drafter; 1 - lam is the n-gram's.
    """

    nodes: Nodes = 48
    num_candidates: Count = 6
    lam: Probability = 0.8

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self), include_extras=True).items():
            object.__setattr__(self, name, conform(name, vars(self)[name], hint))

    @property
    def guided(self) -> bool:
        """Whether a proxy has a say."""
        return self.lam < 1

    def __call__(
        self, top: TopM, prefix: list[int], proxy: Proxy, eos_ids: tuple[int, ...]
    ) -> Draft:
        """The tree, in the drafter's ids, depth first, up to the lattice's first best EOS."""
        end, most = min(draft_end(top, eos_ids) + 1, len(top.ids)), self.num_candidates
        ids, log_prob = top.ids[:end, :most].cpu(), top.log_prob[:end, :most].cpu()
        scorer = proxy.at(prefix)
        fix = "a tree is scored by an n-gram of this package, or by none (lam=1)"
        require(isinstance(scorer, NGram), "proxy", type(scorer).__name__, fix)
        assert isinstance(scorer, NGram)
        token, parent, score = ops.lattice_tree(
            ids,
            log_prob,
            log_prob.isfinite().sum(1).clamp(min=1),
            **scorer.tables,
            floor=scorer.floor,
            prefix=torch.tensor(last(prefix, scorer.order - 1), dtype=torch.int64, device="cpu"),
            nodes=self.nodes,
            lam=self.lam,
            eos_ids=as_tensor(eos_ids),
        )
        tree = Draft.known(token, parent, score.clamp(max=0))
        return tree.only(tree.depth_first())


def resolve_search(path_search: Any) -> PathSearch | BestTokens | LatticeTree:
    """The rule that `path_search` names."""
    if isinstance(path_search, (PathSearch, BestTokens, LatticeTree)):
        return path_search
    named = {"cps": PathSearch, "argmax": BestTokens, "tree": LatticeTree}
    known = isinstance(path_search, str) and path_search in named
    fix = "give 'cps', 'argmax', 'tree', a PathSearch or a LatticeTree"
    require(known, "path_search", path_search, fix)
    return named[path_search]()
