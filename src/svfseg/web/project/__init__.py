"""A project of the page: a folder with a database, and files that it refers to."""

from svfseg.web.project.project import PageProject

__all__ = ["PageProject"]
