"""Finding the app that a command is about: ``MODULE`` or ``MODULE:APP``."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import ConfigError, HeadraceError

if TYPE_CHECKING:
    from types import ModuleType

    from engine.app import App


def load_app(where: str) -> App:
    """Import a module and return its app (the attribute ``app`` where none is named).

    Raises:
        ConfigError: there is no such module or app; the message says which and where.
    """
    name, _, attribute = where.partition(":")
    attribute = attribute or "app"
    if not name:
        raise ConfigError(f"{where!r} names no module: write MODULE or MODULE:NAME")
    module = _module(name)
    from engine.app import App

    found = getattr(module, attribute, None)
    if isinstance(found, App):
        return found
    if found is not None:
        raise ConfigError(
            f"{name}:{attribute} is no engine.App but a value of type {type(found).__name__}"
        )
    apps = [key for key, value in vars(module).items() if isinstance(value, App)]
    hint = f"did you mean {name}:{apps[0]}?" if apps else "it defines no app = App(...)"
    raise ConfigError(f"module {name} has no {attribute!r}: {hint}")


def _module(name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    if name.endswith(".py") or "/" in name:
        dotted = name.removesuffix(".py").strip("./").replace("/", ".")
        raise ConfigError(f"{name!r} is a file: name the module instead, {dotted}")
    try:
        return import_module(name)
    except HeadraceError:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise ConfigError(f"there is no module {name!r} in {here} or installed") from error
        raise ConfigError(f"module {name} needs {error.name}, which is not installed") from error
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(
            f"module {name} cannot be imported: {said} (--debug shows where)"
        ) from error
