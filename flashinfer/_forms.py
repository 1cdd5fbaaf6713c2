"""Calls in the form of another release: the same function, with other names or another order.

A decorator takes such a call to the function's own form, so that the function has one signature,
which ``help()``, editors and type checkers show, and one body. torch.compile traces what is here,
so it is plain: of the operations on sets, for one, it knows not all.
"""

from __future__ import annotations

import functools
from typing import Any, Callable, Mapping, Sequence, TypeVar

F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R")
Arguments = Mapping[str, Any]
Form = Callable[[Sequence[Any], Arguments], bool]


def renamed(**names: str) -> Callable[[F], F]:
    """Takes keywords by another name too: ``renamed(theirs="ours")``.

    Raises:
        TypeError: in a call, an argument comes under both names.
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            for theirs, ours in names.items():
                if theirs not in kwargs:
                    continue
                if ours in kwargs:
                    raise TypeError(
                        f"{function.__qualname__} got {theirs!r} and {ours!r}, two names of one"
                        " argument"
                    )
                kwargs[ours] = kwargs.pop(theirs)
            return function(*args, **kwargs)

        return call  # type: ignore[return-value]  # wraps keeps the signature

    return decorate


def also(parameters: Sequence[str], when: Form) -> Callable[[F], F]:
    """Takes a call with its arguments in another order too.

    Args:
        parameters: the names of the other form, in its order; those of the function's own.
        when: whether a call, positional and named arguments, has that form.

    Raises:
        TypeError: in a call of the other form, an argument comes twice, or there are too many.
    """

    def decorate(function: F) -> F:
        # wraps keeps the signature
        return diverted(parameters, when, function)(function)  # type: ignore[return-value]

    return decorate


def diverted(
    parameters: Sequence[str], when: Form, to: Callable[..., R]
) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Has another function called for a call in another form, with all arguments by name.

    Arguments and errors are those of :func:`also`.
    """

    def decorate(function: Callable[..., R]) -> Callable[..., R]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> R:
            if not when(args, kwargs):
                return function(*args, **kwargs)
            return to(**bind(function.__qualname__, parameters, args, kwargs))

        return call

    return decorate


def bind(
    name: str, parameters: Sequence[str], args: Sequence[Any], kwargs: Arguments
) -> dict[str, Any]:
    """All arguments of a call by name.

    Raises:
        TypeError: one comes twice, or there are too many.
    """
    if len(args) > len(parameters):
        raise TypeError(
            f"{name} takes {len(parameters)} arguments in this form, {', '.join(parameters)}, and"
            f" got {len(args)}"
        )
    bound = dict(zip(parameters, args))
    for given in bound:
        if given in kwargs:
            raise TypeError(f"{name} got {given!r} twice")
    return {**bound, **kwargs}
