"""Options of plug-ins: dataclasses whose fields carry their range and, below them, a docstring.

A plug-in declares its options once. This file derives everything else from the declaration: type and range checks, the
nearest name for a mistyped key, and the comments of `inrkit show`.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import difflib
import functools
import inspect
import itertools
import linecache
import math
import re
import textwrap
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from inrkit.errors import interrupted


def option(
    default: Any,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] | None = None,
    own: bool = False,
) -> Any:
    """A dataclass field with a range or a list of choices, checked before any work starts.

    Args:
        default: of the field; lists and mappings are copied.
        at_least, above: lowest number, which is allowed or is not.
        at_most, below: highest number, likewise.
        choices: of a text.
        own: whether the field means something else in other plug-ins that have one of the same name. When this plug-in
            replaces one of these, the value that a preset chose for the other is not kept.
    """
    limits = {"at_least": at_least, "above": above, "at_most": at_most, "below": below, "choices": choices}
    metadata = {key: value for key, value in limits.items() if value is not None} | {"own": own}
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def nearest(name: Any, known: Iterable[Any]) -> str:
    """`; did you mean 'x'?`, or the list of known names if none is near. Keys of a file may be numbers."""
    known = sorted({str(each) for each in known})
    lowered = {each.lower(): each for each in known}
    close = difflib.get_close_matches(str(name).lower(), lowered, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{lowered[close[0]]}'?"
    return f"; choose one of: {', '.join(known)}" if known else ""


def field_names(options: type) -> set[str]:
    """Names of the options that the dataclass `options` declares."""
    return {field.name for field in dataclasses.fields(options)}


def shared_names(options: type) -> set[str]:
    """Names of the options that mean the same in every plug-in that declares them."""
    return {field.name for field in dataclasses.fields(options) if not field.metadata.get("own")}


def parse(
    options: type, given: Mapping[str, Any], where: str, elsewhere: Callable[[str], str] | None = None
) -> tuple[Any | None, list[str]]:
    """Build `options` from `given`; never raises.

    Args:
        options: a dataclass made with `option` fields.
        given: values by field name.
        where: the key under which the values stand, for messages ("selector").
        elsewhere: gives a hint for an unknown key that is known at another place, or "".

    Returns:
        The instance (None if there were errors) and all error messages.
    """
    hints = typing.get_type_hints(options)
    known = {field.name: field for field in dataclasses.fields(options)}
    prefix = f"{where}." if where else ""
    values: dict[str, Any] = {}
    errors = []
    for key, value in given.items():
        if key not in known:
            hint = elsewhere(str(key)) if elsewhere is not None else ""
            errors.append(f"{prefix}{key} is not an option{hint or nearest(str(key), known)}")
            continue
        try:
            # Cached, because a study parses the same few values thousands of times.
            value = (_typed_plain if isinstance(value, str | int | float | None) else _typed)(options, key, value)
        except (OmegaConfBaseException, ValueError, TypeError, RecursionError) as error:
            if interrupted(error):
                raise KeyboardInterrupt from error
            errors.append(f"{prefix}{key} is {_shown(value)}; it must be {_kind(hints[key])}")
            continue
        complaint = _outside(value, known[key].metadata)
        if complaint:
            errors.append(f"{prefix}{key} is {_shown(value)}; it must be {complaint}")
        values[key] = value
    for name, field in known.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in given:
            errors.append(f"{prefix}{name} is missing; give it as {prefix}{name}=…")
    if errors:
        return None, errors
    try:
        return options(**values), []
    except ValueError as error:  # from a __post_init__ that compares options with each other
        return None, [f"{where}: {error}"]


def _typed(options: type, key: str, value: Any) -> Any:
    """The value as the type that the field `key` of `options` declares.

    Raises:
        OmegaConfBaseException, ValueError: it is of another type.
    """
    typed = OmegaConf.merge(_structured(options), {key: _literal(value)})
    result = OmegaConf.to_container(typed, resolve=True)[key]  # type: ignore[call-overload, index]
    # OmegaConf looks at the entries of a list only where they are no containers themselves.
    kinds = typing.get_args(typing.get_type_hints(options)[key]) if isinstance(result, list) else ()
    if kinds and any(isinstance(entry, list | dict) for entry in result):
        raise ValueError("containers inside a list")
    return result


_typed_plain = functools.lru_cache(maxsize=1 << 14, typed=True)(_typed)


@functools.cache
def _structured(options: type) -> Any:
    """A dataclass as OmegaConf's structured config. Merge with it, which copies it; never change it."""
    return OmegaConf.structured(options)


def _literal(value: Any) -> Any:
    """The value, with everything escaped that OmegaConf would take for an interpolation.

    Config files are resolved when they are read. Values that are parsed later come from elsewhere, such as a field's
    file; an interpolation there could call any resolver that the process has registered.
    """
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", lambda match: 2 * match[1] + r"\${", value)
    if isinstance(value, dict):
        return {_literal(key): _literal(entry) for key, entry in value.items()}
    return [_literal(entry) for entry in value] if isinstance(value, list | tuple) else value


def _outside(value: Any, limits: Mapping[str, Any]) -> str | None:
    if value is None:
        return None
    if "choices" in limits:
        if value in limits["choices"]:
            return None
        return "one of: " + ", ".join(limits["choices"])
    if isinstance(value, list):
        return next((complaint for complaint in (_outside(entry, {}) for entry in value) if complaint), None)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return "a finite number"
    low, high = limits.get("at_least", limits.get("above")), limits.get("at_most", limits.get("below"))
    inside = (
        value >= limits.get("at_least", -math.inf)
        and value > limits.get("above", -math.inf)
        and value <= limits.get("at_most", math.inf)
        and value < limits.get("below", math.inf)
    )
    if inside:
        most = _LARGEST if isinstance(value, float) else _LARGEST_WHOLE
        if value > most:
            return f"at most {most}"
        return None if value >= -most else f"at least {-most}"
    if high is None:
        return f"at least {low}" if "at_least" in limits else f"above {low}"
    if low is None:
        return f"at most {high}" if "at_most" in limits else f"below {high}"
    opening, closing = "[" if "at_least" in limits else "(", "]" if "at_most" in limits else ")"
    return f"in {opening}{low}, {high}{closing}"


_LARGEST, _LARGEST_WHOLE = 1e30, 2**63 - 1
"""The largest numbers that options may have: such that float32, with room for what a computation makes of them, and 64
bits hold them."""


def _kind(hint: Any) -> str:
    origin = typing.get_origin(hint)
    if origin in (list, tuple):
        return "a list, like [a,b]"
    if origin is dict:
        return "a mapping, like {name: value}"
    if origin is not None:
        return " or ".join(_kind(part) for part in typing.get_args(hint) if part is not type(None))
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return names.get(hint, f"a {getattr(hint, '__name__', hint)}")


def _shown(value: Any) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value)


@functools.cache
def docstrings(options: type) -> dict[str, str]:
    """The docstring under each field of a dataclass, its own and its bases', read from the source."""
    found: dict[str, str] = {}
    for base in reversed(options.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        for statement, following in itertools.pairwise(_body_of(base)):
            if (
                isinstance(statement, ast.AnnAssign)
                and isinstance(statement.target, ast.Name)
                and isinstance(following, ast.Expr)
                and isinstance(following.value, ast.Constant)
            ):
                found[statement.target.id] = " ".join(str(following.value.value).split())
    names = field_names(options)
    return {name: text for name, text in found.items() if name in names}


def _body_of(made: type) -> list[ast.stmt]:
    """The statements of a class; none if its source is not to be had."""
    try:
        return typing.cast(ast.ClassDef, ast.parse(textwrap.dedent(inspect.getsource(made))).body[0]).body
    except (OSError, TypeError):
        pass
    # A class of a notebook's cell has no file; the cell's source is where tracebacks find it, under a name of its own.
    cells = [name for name in linecache.cache if "ipykernel" in name or "ipython-input" in name]
    for name in reversed(cells if made.__module__ == "__main__" else []):
        with contextlib.suppress(SyntaxError):  # of a cell that has magics
            for statement in ast.parse("".join(linecache.getlines(name))).body:
                if isinstance(statement, ast.ClassDef) and statement.name == made.__name__:
                    return statement.body
    return []
