"""What the arguments mean that many functions share: said once, and shown with each of them.

Signatures are written out, function by function: editors and type checkers read them there. Of the
docstrings, only what is a function's own is; :func:`arguments` adds the rest when the module is
imported, so that ``help()`` shows all of it.
"""

from __future__ import annotations

import inspect
import textwrap
from typing import Any, Callable, Mapping, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

_SECTIONS = ("Args:", "Returns:", "Raises:", "Example:")
_WIDTH = 96

# Of attention, by flashinfer.decode's names; its module docstring has what goes beyond an argument.
ATTENTION = {
    "num_qo_heads": "heads of the queries.",
    "num_kv_heads": "heads of keys and values.",
    "head_dim": "elements of a head.",
    "page_size": "entries of a page.",
    "kv_layout": '``"NHD"`` or ``"HND"``.',
    "custom_mask": "``[sum(qo_len * kv_len)]``, a bool for each query and key, row after row,"
    " request after request; it takes the place of ``causal``.",
    "packed_custom_mask": "uint8, the same as bits, as :func:`flashinfer.segment_packbits` packs"
    ' them with ``bitorder="little"``; used where both are given.',
    "causal": "query i of ``qo_len`` sees keys up to ``kv_len - qo_len + i``.",
    "pos_encoding_mode": '``"NONE"``; ``"ROPE_LLAMA"``: rotates queries and keys on the fly;'
    ' ``"ALIBI"``.',
    "use_tensor_cores": "ignored: there is one kernel for all group sizes.",
    "backend": "ignored, likewise.",
    "allow_fp16_qk_reduction": "ignored: scores are summed in fp32.",
    "non_blocking": "ignored: copies never wait.",
    "sm_scale": "factor of the scores; None: ``1 / sqrt(head_dim)``.",
    "window_left": "a query at position p sees keys from ``p - window_left`` on; -1 or None: all.",
    "logits_soft_cap": "c > 0 turns a score x into ``c * tanh(x / c)``; None or 0: no cap.",
    "rope_scale": 'of ``"ROPE_LLAMA"``, as in :mod:`flashinfer.rope`; None: 1.',
    "rope_theta": "the same; None: 1e4.",
    "q_data_type": "a dtype or its name; a plan does not depend on it.",
    "kv_data_type": "the same.",
    "data_type": "the same.",
    "o_data_type": "of the output: it must be that of the queries.",
    "head_dim_vo": "elements of a head of the values: it must be ``head_dim``.",
    "fixed_split_size": "as ``disable_split_kv`` where it is above 0.",
    "disable_split_kv": "do not split the keys of a request, so that its result does not depend on"
    " the other requests.",
    "hints": "ignored: ``block_tables``, ``seq_lens`` and such, which later releases take.",
    "q_scale": "what quantised queries are to be multiplied by; joins ``sm_scale``.",
    "k_scale": "the same of keys.",
    "v_scale": "factor of the output, for quantised values.",
    "return_lse": "return ``(out, lse)``.",
    "out": "where to write the output; allocated where None.",
    "lse": "where to write the log-sum-exps, only where they are returned; allocated where None.",
    "enable_pdl": "ignored.",
    "paged_kv_cache": "one tensor ``[pages, 2, page_size, num_kv_heads, head_dim]`` (NHD) or"
    " ``[pages, 2, num_kv_heads, page_size, head_dim]`` (HND), or a tuple of keys and values, each"
    " without the dimension of 2. With a page size of 1, the dimension of the pages' entries may be"
    " missing.",
}


def arguments(texts: Mapping[str, str], **own: str) -> Callable[[F], F]:
    """Adds to ``Args`` of a docstring the parameters that it leaves out.

    A class has it for its constructor, and its own public methods have it too.

    Args:
        texts: by name, what each parameter means.
        own: the same, of this function or class alone, in place of what ``texts`` has.
    """
    texts = {**texts, **own}

    def decorate(function: F) -> F:
        members = vars(function).items() if inspect.isclass(function) else ()
        for name, member in members:
            if inspect.isfunction(member) and not name.startswith("_"):
                _complete(member, texts)
        _complete(function, texts)
        return function

    return decorate


def _complete(function: Callable[..., Any], texts: Mapping[str, str]) -> None:
    if function.__doc__:  # there is none with -OO
        names = [name for name in inspect.signature(function).parameters if name != "self"]
        function.__doc__ = _with_arguments(function.__doc__, names, texts)


def _with_arguments(doc: str, names: list[str], texts: Mapping[str, str]) -> str:
    lines = inspect.cleandoc(doc).splitlines()
    begin = lines.index("Args:") if "Args:" in lines else len(lines)
    end = begin + 1
    while end < len(lines) and (not lines[end] or lines[end].startswith("    ")):
        end += 1
    said: dict[str, list[str]] = {}
    for line in lines[begin + 1 : end]:
        if line and not line.startswith("     "):
            entry = said.setdefault(line.strip().partition(":")[0], [])
        if line:
            entry.append(line)
    for name in names:
        if name not in said and name in texts:
            said[name] = textwrap.fill(
                f"{name}: {texts[name]}",
                _WIDTH,
                initial_indent="    ",
                subsequent_indent="        ",
                break_long_words=False,
                break_on_hyphens=False,
            ).splitlines()
    before, after = lines[:begin], lines[end:]
    if begin == len(lines):
        ends = [lines.index(section) for section in _SECTIONS if section in lines]
        at = min(ends, default=len(lines))
        before, after = lines[:at], lines[at:]
    while before and not before[-1]:
        before.pop()
    order = [name for name in names if name in said] + [name for name in said if name not in names]
    if not order:
        return doc
    body = [line for name in order for line in said[name]]
    return "\n".join([*before, "", "Args:", *body, *([""] if after else []), *after])
