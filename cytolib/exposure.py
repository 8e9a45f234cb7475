"""What an encoder has seen of a data set before it embeds it: the column ``encoder_exposure`` of a result table.

Only what could be established stands here; everything else is "unknown", which is no "none".
"""

from __future__ import annotations

import re

from cytolib import small
from cytolib.joined import parts_of

NONE, UNLABELLED, UNKNOWN = "none", "unlabelled images", "unknown"

#: Sets of single cells that DinoBloom's authors list as their material (its README and its pre-training splits): treat
#: them as seen, without labels. Of BMC that is the training part (80 %). Acevedo's set (pbc) is listed too, but serves
#: their evaluation: whether it was trained on could not be established. MLL23 is younger, but from a laboratory whose
#: images were used.
DINOBLOOM_SEEN = frozenset({"matek", "bmc", "raabin", "lisc", "aml_hehr", "apl_aml"})

# timm's tags of weights trained on ImageNet-1k alone: photographs of everyday things, older than the cell sets.
_IMAGENET = re.compile(r"(a1|a1h|a2|a3|b|b1k|b2k|bt|c|d|lamb|ra|ra2|ra3|ra4|rmsp|tf|tv|tv2|augreg)_in1k")


#: What ``cytolib-small`` has seen nothing of in the sets that it learned from: (set, domain) and (set, class).
SMALL_UNSEEN_DOMAINS = frozenset({("pbc", "pbc_lilac")})
SMALL_UNSEEN_CLASSES = frozenset({("phantoms", "blast")})


def encoder_exposure(encoder: str, dataset: str, domain: str = "", label: str = "") -> str:
    """ "none", "unlabelled images" or "unknown": what ``encoder`` saw of ``dataset`` in its pre-training.

    Of encoders side by side, the most that one of them saw.

    Args:
        encoder: a name for ``get_encoder``, options included, or "none"; weights given as a file count as what the
            name says.
        dataset: a data set's name, as in the cell table.
        domain: one of its domains, where the rows are of that alone.
        label: one of its classes, where the rows are about cells of that alone, such as an anomaly's.
    """
    found = [_of_one(part, dataset, domain, label) for part in parts_of(encoder)]
    return max(found, key=(NONE, UNLABELLED, UNKNOWN).index)


def _of_one(encoder: str, dataset: str, domain: str, label: str) -> str:
    base = encoder.partition("?")[0]
    if base == small.NAME:  # the training split of PBC's main set-up and phantoms of the usual classes, no label
        unseen = (dataset, domain) in SMALL_UNSEEN_DOMAINS or (dataset, label) in SMALL_UNSEEN_CLASSES
        return UNLABELLED if dataset in ("pbc", "phantoms") and not unseen else NONE
    # Nothing is learned in these two, and no published model has seen phantoms.
    if base in ("none", "morphometry") or dataset == "phantoms":
        return NONE
    if base.startswith("dinobloom-"):
        return UNLABELLED if dataset in DINOBLOOM_SEEN else UNKNOWN
    if base.startswith("timm:") and _IMAGENET.fullmatch(base.partition(".")[2]):
        return NONE
    return UNKNOWN
