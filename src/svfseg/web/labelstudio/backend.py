"""The class and the server that Label Studio's own package, label-studio-ml, makes of a project."""

import importlib
import logging
import multiprocessing
import os
import socket
from collections.abc import Mapping
from typing import Any

from svfseg.errors import InputError
from svfseg.web.labelstudio.session import Project

log = logging.getLogger("svfseg.labelstudio")

# A brush mask is a list of numbers as text: some megabytes for a large image.
_MOST_BYTES = 200_000_000


def build_backend(base: type, project: Project) -> type:
    """A model class of label-studio-ml that hands everything to a project.

    Args:
        base: the package's ``LabelStudioMLBase``, of version 1 or 2: they call the same methods
            with other arguments.
        project: what predicts and fits.
    """

    class Backend(base):  # type: ignore[misc]
        """Made anew for each set-up (version 1) or request (version 2): it holds nothing."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            if kwargs.get("label_config"):
                project.configure(kwargs["label_config"])
            super().__init__(*args, **kwargs)

        def setup(self) -> None:
            """Version 2 asks for the version so; version 1 asks `_hold_jobs`."""
            self.set("model_version", project.version or "INITIAL")

        def predict(self, tasks: Any, context: Any = None, **_: Any) -> list[dict[str, Any]]:
            """Predictions, one a task; none before something was fitted."""
            return project.predict(tasks)

        def fit(self, *given: Any, event: str | None = None, data: Any = None, **_: Any) -> Any:
            """Version 1: tasks of /train; version 2: an event of /webhook and its data."""
            if given and isinstance(given[0], str):
                event, data = given[0], given[1] if len(given) > 1 else data
            if event is None:
                project.receive_tasks(given[0] if given else ())
            else:
                _receive(project, event, data)
            return {}

    return Backend


def make_app(project: Project) -> Any:
    """The server of label-studio-ml for a project, a Flask application.

    Raises:
        InputError: label-studio-ml, or something that it imports, is not installed.
    """
    os.environ.setdefault("LABEL_STUDIO_ML_BACKEND_V2", "1")  # version 1's newer protocol
    os.environ.setdefault("MODEL_DIR", str(project.folder))  # where version 2 keeps its settings
    start_method = multiprocessing.get_start_method(allow_none=True)
    try:
        api = importlib.import_module("label_studio_ml.api")
        model = importlib.import_module("label_studio_ml.model")
    except ModuleNotFoundError as error:
        raise InputError(
            f"{error}: install Label Studio's package label-studio-ml as docs/label-studio.md says"
        ) from None
    multiprocessing.set_start_method(start_method, force=True)  # its import changes it for all
    app = api.init_app(build_backend(model.LabelStudioMLBase, project))
    app.config["MAX_CONTENT_LENGTH"] = _MOST_BYTES
    if hasattr(model, "LabelStudioMLManager"):
        _hold_jobs(model, project)
    return app


def serve_project(project: Project, listening: socket.socket) -> None:
    """Answer Label Studio until interrupted.

    Args:
        project: what predicts and fits.
        listening: where.

    Raises:
        InputError: label-studio-ml, or something that it imports, is not installed.
    """
    app = make_app(project)
    from werkzeug.serving import make_server

    host, port = listening.getsockname()[:2]
    server = make_server(host, port, app, threaded=True, fd=listening.fileno())
    log.info("answers Label Studio on http://%s:%d", host, port)
    try:
        server.serve_forever()
    finally:
        project.close()


def _hold_jobs(model: Any, project: Project) -> None:
    """Version 1 starts a process for each event and keeps a folder of each: neither is needed."""

    class Jobs(model.JobManager):  # type: ignore[misc]
        def get_result(self, model_version: str | None = None) -> dict[str, Any]:
            return {"job_id": project.version} if project.version else {}

        def run_job(self, model_class: type, args: tuple[str, Mapping[str, Any], str]) -> None:
            event, data, _ = args
            _receive(project, event, data)

    manager = model.LabelStudioMLManager
    manager.get_job_manager = classmethod(lambda cls: Jobs())
    manager.fetch(label_config=project.label_config)  # answers before Label Studio sets it up again


def _receive(project: Project, event: str, data: Mapping[str, Any]) -> None:
    """Give an event to the project; what is wrong with it is the answer, with status 400."""
    import flask

    try:
        project.receive(event, data)
    except (ValueError, OSError) as error:
        log.warning("%s: %s", event, error)
        flask.abort(flask.make_response({"detail": str(error)}, 400))
