"""Register rlgen's environments with gymnax without importing it.

`import gymnax` takes seconds. `import rlgen` therefore only installs a hook, which adds rlgen's ids
to gymnax's registry as soon as gymnax is imported, or at once if it already is. The environments
behind the ids are defined in `rlgen.gymnax`.
"""

import functools
import importlib
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

REGISTRATION = "gymnax.registration"

FACTORIES = {"rlgen/Maze-v0": "maze_pool", "rlgen/MazeLevel-v0": "maze_level"}
"""Maps each id to the function of `rlgen.gymnax` that builds its environment."""


def install() -> None:
    """Register the ids now if gymnax is imported, else on its import; safe to call repeatedly."""
    # At the front: Python uses the first finder that returns a spec.
    sys.meta_path[:] = [_AfterImport(), *_other_finders()]
    if REGISTRATION in sys.modules:
        _register(sys.modules[REGISTRATION])


class _AfterImport:
    """Import finder that finds no modules itself; it adds a call after the import of one module."""

    def find_spec(self, name: str, path=None, target=None) -> ModuleSpec | None:
        """Return a spec for gymnax's registry that adds rlgen's ids after loading it.

        The spec comes from the other finders; only its loader is changed. None for other modules.
        """
        if name != REGISTRATION:
            return None
        specs = (finder.find_spec(name, path, target) for finder in _other_finders())
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            _register(module)

        spec.loader.exec_module = execute_and_register
        return spec


def _other_finders() -> list:
    # Compared by name: a second import of this file, as in notebooks, creates a second class.
    hook = (_AfterImport.__module__, _AfterImport.__name__)
    return [f for f in sys.meta_path if (type(f).__module__, type(f).__name__) != hook]


def _register(registration: ModuleType) -> None:
    for env_id, factory in FACTORIES.items():
        # gymnax rejects an id that is registered, and notebooks may import rlgen repeatedly.
        if env_id not in registration.registered_envs:
            registration.register(env_id, functools.partial(_build, factory))


def _build(factory: str, **fields):
    return getattr(importlib.import_module("rlgen.gymnax"), factory)(**fields)
