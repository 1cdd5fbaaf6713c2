"""The labels of this project as its own types, from those that conda_bridge reads."""

from __future__ import annotations

from conda_bridge import label as labels

from ..label import Label, LibraryLabel, Variant

__all__ = ["label_of", "library_label_of"]


def label_of(label: labels.Label) -> Label:
    """The label of a flashinfer package or wheel.

    Raises:
        LabelError: it has no torch, or a version that this project does not give.
    """
    variant = Variant.from_pins(label.get("cuda") or "None", label.get("torch") or "")
    return Label(variant, label.version, label.number, label.get("commit"))


def library_label_of(label: labels.Label) -> LibraryLabel:
    """The label of the libflashinfer package: what a label says beside its torch.

    Raises:
        LabelError: it has a version that this project does not give.
    """
    cuda = label.get("cuda")
    # The torch is of no account: any that a variant can have.
    variant = Variant.from_pins(cuda or "None", "2.0")
    return LibraryLabel(variant.cuda, label.version, label.number, label.get("commit"))
