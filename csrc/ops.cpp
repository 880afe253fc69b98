// Every op of dlmdecode by its schema. A kernel registers itself, at the end of its own file in
// cpu/ or cuda/; `reference` in dlmdecode/ops has parameters of the same names.
//
// Built on libtorch's stable ABI, so that one binary serves every later torch and Python.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(dlmdecode, m) {
  // Whether the CUDA kernels were built too.
  m.def("has_cuda() -> bool");
  // Rows of logits to tokens. float64: compute and return in double.
  m.def(
      "propose(Tensor logits, Tensor? need, int exclude, float temperature, int seed, "
      "Tensor? stream, Tensor? position, bool float64) -> (Tensor, Tensor, Tensor, Tensor)");
  // The same after credits: the slots' new ids and credits follow.
  m.def(
      "credit(Tensor logits, Tensor ids, Tensor credits, float alpha, float beta, float gamma, "
      "Tensor? need, int exclude, float temperature, int seed, Tensor? stream, Tensor? position, "
      "bool float64) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  // Writes what a rule selects of the proposal into masked positions; returns how many per row.
  m.def(
      "commit(Tensor(a!) tokens, Tensor proposed, Tensor confidence, Tensor lo, Tensor hi, "
      "int mask_id, int rule, float level, float relaxed, int radius, Tensor? quota, "
      "Tensor? entropy, int minimum) -> Tensor");
  // What is still to be written on a canvas, and its rows' numbers.
  m.def(
      "survey(Tensor tokens, Tensor proposed, Tensor held, Tensor[] numbers, Tensor eos, "
      "int mask_id) -> (Tensor, Tensor, Tensor)");
  // Proposals with new ones among them.
  m.def(
      "put(Tensor token, Tensor prob, Tensor margin, Tensor entropy, Tensor at, Tensor where, "
      "Tensor new_token, Tensor new_prob, Tensor new_margin, Tensor new_entropy) "
      "-> (Tensor, Tensor, Tensor, Tensor)");
  // How far rows of logits have moved from others, in nats.
  m.def(
      "divergence(Tensor logits, Tensor before, Tensor norm_before, Tensor at, "
      "Tensor? need) -> (Tensor, Tensor)");
  // Open positions that were selected, the most confident one in rows where none was.
  m.def("choose(Tensor where, Tensor open, Tensor confidence) -> Tensor");
  // The m best tokens of each row and their log-probabilities.
  m.def("topm(Tensor logits, int m) -> (Tensor, Tensor)");
  // The tokens of each draft position that a path may take, moved to the front. On the CPU.
  m.def(
      "candidates(Tensor ids, Tensor log_prob, float mass, Tensor eos_ids) "
      "-> (Tensor, Tensor, Tensor)");
  // The best path through a lattice of draft tokens, and its score. On the CPU.
  m.def(
      "path_search(Tensor ids, Tensor log_prob, Tensor count, Tensor[] keys, Tensor[] log_probs, "
      "Tensor[] contexts, Tensor[] weights, float floor, Tensor prefix, int beam, float lam, "
      "Tensor eos_ids) -> (Tensor, Tensor)");
  // The likeliest tree of a lattice: tokens, parents, log probabilities. On the CPU.
  m.def(
      "lattice_tree(Tensor ids, Tensor log_prob, Tensor count, Tensor[] keys, Tensor[] log_probs, "
      "Tensor[] contexts, Tensor[] weights, float floor, Tensor prefix, int nodes, float lam, "
      "Tensor eos_ids) -> (Tensor, Tensor, Tensor)");
  // Sorted keys of a text's n-grams, their log relative frequencies, and sorted keys of their
  // contexts, of all orders together. On the CPU.
  m.def("count_ngrams(Tensor ids, int order) -> (Tensor, Tensor, Tensor)");
}

namespace {
bool has_cuda() {
#ifdef USE_CUDA
  return true;
#else
  return false;
#endif
}
}  // namespace

STABLE_TORCH_LIBRARY_IMPL(dlmdecode, CompositeExplicitAutograd, m) {
  m.impl("has_cuda", TORCH_BOX(&has_cuda));
}
