"""Register rlgen's environments with gymnax without importing gymnax.

`import gymnax` takes seconds. `import rlgen` therefore only installs a hook, which adds the ids of
rlgen's environments to gymnax's registry as soon as gymnax is imported. If gymnax is already
imported, the ids are added at once. The environments behind the ids are defined in `rlgen.gymnax`.
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
    """Register rlgen's ids with gymnax, at once or as soon as gymnax is imported.

    The function can be called repeatedly.
    """
    # The hook must be the first finder, because Python uses the first finder that returns a spec.
    sys.meta_path[:] = [_AfterImport(), *_other_finders()]
    if REGISTRATION in sys.modules:
        _register(sys.modules[REGISTRATION])


class _AfterImport:
    """Import finder that registers rlgen's ids after the import of gymnax's registry.

    The class finds no module itself; it delegates to the other finders.
    """

    def find_spec(self, name: str, path=None, target=None) -> ModuleSpec | None:
        """Return the spec of gymnax's registry, with a loader that also registers rlgen's ids.

        For any other module the result is None, so that Python asks the next finder.
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
    # Classes are compared by name, because a second import of this file, as in notebooks, creates a
    # second class.
    hook = (_AfterImport.__module__, _AfterImport.__name__)
    return [f for f in sys.meta_path if (type(f).__module__, type(f).__name__) != hook]


def _register(registration: ModuleType) -> None:
    for env_id, factory in FACTORIES.items():
        # gymnax rejects an id that is already registered, and notebooks may import rlgen
        # repeatedly.
        if env_id not in registration.registered_envs:
            registration.register(env_id, functools.partial(_build, factory))


def _build(factory: str, **fields):
    return getattr(importlib.import_module("rlgen.gymnax"), factory)(**fields)
