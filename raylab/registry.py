"""Names in a config become objects in Python.

A name is either registered ("rerandomize") or points into any importable file ("my_lab:rotate", "my_lab.rotate").
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib
import inspect
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from raylab.errors import UserError, first_line

T = TypeVar("T")


def suggest(name: str, known: Iterable[str]) -> str:
    """The tail of an error message: "Did you mean 'x'? Available: x, y, z."; "" where nothing is known."""
    names = sorted(known)
    if not names:
        return ""
    close = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"{hint} Available: {', '.join(names)}."


def load(target: str, what: str = "object") -> Any:
    """The object that "package.module:attr" or "package.module.attr" points to.

    Raises UserError where the module cannot be imported or has no such attribute.
    """
    module_name, _, attr = target.partition(":") if ":" in target else target.rpartition(".")
    if not module_name or not attr:
        raise UserError(f"'{target}' names no {what}: write it as module:name, importable from here.")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise UserError(
            f"Cannot import '{module_name}' for the {what} '{target}': {type(error).__name__}: {error}."
        ) from error
    try:
        return getattr(module, attr)
    except AttributeError:
        raise UserError(
            f"'{module_name}' has no '{attr}' (for the {what} '{target}').{suggest(attr, _defined_in(module))}"
        ) from None


def _defined_in(module: ModuleType) -> list[str]:
    """The public functions and classes that are a module's own, or its package's: not what it imports."""
    found = []
    for name, item in vars(module).items():
        owner = str(getattr(item, "__module__", None) or "")
        if not name.startswith("_") and callable(item) and f"{owner}.".startswith(f"{module.__name__}."):
            found.append(name)
    return found


class Registry(Generic[T]):
    """Objects of one kind by name. What is not registered may be pointed to as "module:attr"."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that enters an object under a name. Two owners of a name is a mistake in the code: ValueError."""

        def enter(item: T) -> T:
            if name in self._items:
                owners = f"{_owner(self._items[name])} and {_owner(item)}"
                raise ValueError(f"two owners of the {self.kind} '{name}': {owners}")
            self._items[name] = item
            return item

        return enter

    def resolve(self, name: str) -> T:
        """The object of that name. Raises UserError with the nearest known name."""
        if name in self._items:
            return self._items[name]
        if ":" in name or "." in name:
            return load(name, self.kind)
        raise UserError(f"Unknown {self.kind} '{name}'.{suggest(name, self._items)} Your own: module:name.")

    def __contains__(self, name: object) -> bool:
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)


def bind(config: Mapping[str, Any], what: str) -> Callable[..., Any]:
    """The callable of a `_target_` config with the config's other keys bound to it.

    A key that the callable does not take is a UserError here, before any work, not a TypeError on a worker.
    """
    arguments = {str(key): value for key, value in config.items() if key != "_target_"}
    if not config.get("_target_"):
        raise UserError(f"The {what} has no _target_: give {what}._target_=module:function.")
    function = load(str(config["_target_"]), what)
    parameters = inspect.signature(function).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    for key in arguments:
        if key not in parameters and not takes_any:
            raise UserError(f"{what} '{config['_target_']}' takes no '{key}'.{suggest(key, parameters)}")
    return functools.partial(function, **arguments)


def own_code(*objects: Any) -> dict[str, str]:
    """Module -> digest of its source file, for what is defined outside raylab: editing it changes the answer."""
    found = {}
    for item in objects:
        while isinstance(item, functools.partial):
            item = item.func
        module = inspect.getmodule(item)
        path = getattr(module, "__file__", None)
        if module is not None and path and module.__name__.partition(".")[0] != "raylab":
            found[module.__name__] = hashlib.blake2b(Path(path).read_bytes(), digest_size=12).hexdigest()
    return found


def call(function: Callable[..., Any], config: Mapping[str, Any], what: str, **arguments: Any) -> Any:
    """What a bound `_target_` gives. Arguments that it refuses (TypeError, ValueError) are a UserError.

    So is whatever else a function from outside raylab raises.
    """
    try:
        return function(**arguments)
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        given = ", ".join(f"{key}={value}" for key, value in config.items() if key != "_target_")
        raise UserError(f"{what} '{config['_target_']}' refuses its arguments ({given}): {error}.") from error
    except Exception as error:
        if str(config["_target_"]).startswith("raylab."):
            raise
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(frame.filename).name}, line {frame.lineno}"
        raise UserError(f"{what} '{config['_target_']}' fails: {first_line(error)} ({where}).") from error


def _owner(item: object) -> str:
    return f"{getattr(item, '__module__', '?')}:{getattr(item, '__qualname__', repr(item))}"
