"""Make rlgen's environments known to gymnax without importing it.

`import gymnax` takes seconds, so `import rlgen` only leaves a note: as soon as somebody imports
gymnax, before or after, its registry gets rlgen's ids. What an id builds is in `rlgen.gymnax`.
"""

import functools
import importlib
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

REGISTRATION = "gymnax.registration"

FACTORIES = {"rlgen/Maze-v0": "maze_pool", "rlgen/MazeLevel-v0": "maze_level"}
"""Id to the function of `rlgen.gymnax` that builds the environment."""


def install() -> None:
    """Register now if gymnax is imported, else when it will be. Safe to call again."""
    sys.meta_path[:] = [_AfterImport(), *_other_finders()]
    if REGISTRATION in sys.modules:
        _register(sys.modules[REGISTRATION])


class _AfterImport:
    """An import finder that finds nothing itself: it adds one call after one module's import."""

    def find_spec(self, name: str, path=None, target=None) -> ModuleSpec | None:
        """The spec that the other finders have, with a loader that registers when it is done."""
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
    # By name: a second import of this file, as in notebooks, makes a second class.
    hook = (_AfterImport.__module__, _AfterImport.__name__)
    return [f for f in sys.meta_path if (type(f).__module__, type(f).__name__) != hook]


def _register(registration: ModuleType) -> None:
    for env_id, factory in FACTORIES.items():
        # gymnax refuses an id that it has, and notebooks import rlgen again and again.
        if env_id not in registration.registered_envs:
            registration.register(env_id, functools.partial(_build, factory))


def _build(factory: str, **fields):
    return getattr(importlib.import_module("rlgen.gymnax"), factory)(**fields)
