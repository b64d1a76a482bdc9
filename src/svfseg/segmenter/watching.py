"""Watch folders for images that appear; whatever happens to them, the watch goes on."""

import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from watchfiles import watch

from svfseg.annotations.folders import images_in
from svfseg.errors import InputError
from svfseg.segmenter.prediction_folder import PredictionFolder, state_of

logger = logging.getLogger(__name__)
WATCH_SECONDS = 1.0


class Watch:
    """The images in folders that are whole and not done, again and again."""

    def __init__(self, places: Sequence[Path], folder: PredictionFolder) -> None:
        """Name what is watched.

        Args:
            places: images and folders.
            folder: where their masks go; what it wrote itself is passed over.
        """
        self.places, self.folder = places, folder
        self._seen: dict[Path, list[int]] = {}
        self._tried: dict[Path, list[int]] = {}
        self._said: set[str] = set()

    def __iter__(self) -> Iterator[list[Path]]:
        """Give the images that are ready, each time that something changed and once a second."""
        while True:
            yield self._ready()
            self._wait()

    def _wait(self) -> None:
        """Wait for a change, or a second."""
        there = [place for place in self.places if place.exists()]
        try:
            for _ in watch(
                *there, rust_timeout=int(1000 * WATCH_SECONDS), yield_on_timeout=True,
                raise_interrupt=True, recursive=False, debounce=50, step=10,
            ):  # fmt: skip
                return
        except (OSError, RuntimeError):  # the folder went away, or its system tells no changes
            pass
        time.sleep(WATCH_SECONDS)

    def _ready(self) -> list[Path]:
        """Images whose state was the same a moment ago, and was not tried yet."""
        own = self.folder.own_files()
        states: dict[Path, list[int]] = {}
        for path in self._listed():
            try:
                if path.resolve() not in own:
                    states[path] = state_of(path)
            except OSError as error:
                self._say(f"{path} cannot be read yet ({error.strerror})")
        now = time.time_ns()
        ready: list[Path] = []
        sources = {path.resolve() for path in states}
        stems: dict[str, Path] = {}
        for path, state in states.items():
            still = self._seen.get(path) == state and now - state[2] > 1e9 * WATCH_SECONDS
            if still and self._tried.get(path) != state and self._is_free(path, sources, stems):
                ready.append(path)
                self._tried[path] = state
        self._seen = states
        return ready

    def _listed(self) -> list[Path]:
        try:
            found = images_in(self.places, tell=False)
        except (OSError, InputError) as error:
            self._say(f"{error}: waiting for it")
            return []
        self._said = {said for said in self._said if not said.endswith("waiting for it")}
        return found

    def _is_free(self, path: Path, sources: set[Path], stems: dict[str, Path]) -> bool:
        """Whether no other image has its name, and nothing of others would be replaced."""
        try:
            self.folder.check_image(path, sources, stems)
        except (InputError, OSError) as error:
            self._say(f"left out: {error}")
            return False
        return True

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            logger.warning("%s", text)
