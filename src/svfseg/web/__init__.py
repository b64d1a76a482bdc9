"""The page for people, the service for programs, and the backend for Label Studio.

Names load what they need on first use: most need the packages of the extra "app".
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what type checkers and editors see of the names below
    from svfseg.web.app import create_page
    from svfseg.web.project import PageProject
    from svfseg.web.service import create_service
    from svfseg.web.settings import PageSettings, ServiceSettings

_HOMES = {
    "create_page": "svfseg.web.app",
    "PageProject": "svfseg.web.project",
    "create_service": "svfseg.web.service",
    "PageSettings": "svfseg.web.settings",
    "ServiceSettings": "svfseg.web.settings",
}
__all__ = [
    "PageProject",
    "PageSettings",
    "ServiceSettings",
    "create_page",
    "create_service",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'svfseg.web' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
