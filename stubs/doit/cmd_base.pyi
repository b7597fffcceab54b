# Stubs of doit 0.37, which has no type hints, as far as we use it.
from typing import Any

Dependency: type

class TaskLoader2: ...

class ModuleTaskLoader(TaskLoader2):
    def __init__(self, mod_dict: dict[str, Any]) -> None: ...
