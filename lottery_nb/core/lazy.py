"""torch, imported at its first use: planning and reading committed results need shapes and names
alone, and save the two seconds that the import takes."""

from importlib import import_module
from types import ModuleType


class _Lazy(ModuleType):
    def __getattr__(self, name: str):
        value = getattr(import_module(self.__name__), name)
        setattr(self, name, value)  # from now on without this detour
        return value


torch = _Lazy("torch")
