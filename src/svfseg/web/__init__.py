"""The page for people, the service for programs, and the backend for Label Studio.

Names load what they need on first use: most need the packages of the extra "app".
"""

from typing import TYPE_CHECKING

from svfseg._lazy import lazy_names

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

__getattr__ = lazy_names(__name__, _HOMES)
