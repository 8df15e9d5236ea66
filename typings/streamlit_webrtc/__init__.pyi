# An optional package, which the type checker does not need.
from typing import Any

def __getattr__(name: str) -> Any: ...
