"""The rules of `ops.commit`, written out in plain Python."""


def chosen_by_hand(rule, c, entropy, quota, how):
    """Indices that a rule takes of confidences by position: the definition, in plain Python."""
    order = sorted(c, key=lambda i: (-c[i], i))
    prefix = [order[:n] for n in range(1, len(order) + 1)]
    taken = {
        "topk": lambda: order[:quota],
        "threshold": lambda: [i for i in c if c[i] >= how["threshold"]],
        "factor": lambda: longest(prefix, lambda p: (len(p) + 1) * (1 - c[p[-1]]) < how["factor"]),
        "frechet": lambda: longest(
            prefix,
            lambda p: max(0, sum(c[i] for i in p) - (len(p) - 1)) - (1 - c[p[-1]]) > how["delta"],
        ),
        "entropy_bound": lambda: longest(
            prefix,
            lambda p: sum(entropy[i] for i in p) - max(entropy[i] for i in p) <= how["gamma"],
        ),
        "relaxed": lambda: [
            i
            for i in c
            if c[i] >= how["threshold"]
            or c[i] >= how["relaxed"]
            and any(c[j] >= how["threshold"] and abs(i - j) <= how["radius"] for j in c)
        ],
    }[rule]()
    return set(taken) | set(order[:1])


def longest(prefixes, passes):
    return max((p for p in prefixes if passes(p)), key=len, default=[])
