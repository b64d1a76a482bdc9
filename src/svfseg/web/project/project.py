"""A project of the page: images, their marks, what was learned and what was predicted."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

import numpy as np
from PIL import Image

from svfseg.annotations.names import class_names
from svfseg.data.images import Array
from svfseg.data.masks import read_mask
from svfseg.errors import InputError
from svfseg.segmenter import FewShotSegmenter, Segmentation
from svfseg.web.errors import OutdatedError
from svfseg.web.project.encoding import (
    displayed_suffix,
    file_name,
    ids_file,
    probability_file,
    stem_of,
    task_file,
)
from svfseg.web.project.files import digest_of
from svfseg.web.project.records import FitRecord, ImageRecord, work_size
from svfseg.web.project.store import IMAGES, MARKS, RESULTS, TASKS, Change, ProjectStore
from svfseg.web.project.tables import read_fit, read_image
from svfseg.web.uploads import decode_image

# Ids are values of 8 bits; 0 is background and 255 unknown.
LARGEST_ID = 254


@dataclass(frozen=True)
class Examples:
    """What a person marked, at one revision.

    Attributes:
        class_ids: ids of the classes.
        names: names of the classes, in the same order.
        images: files of the images.
        masks: (height, width) uint8 of places in ``class_ids``, from 1; None of an image without
            any class.
    """

    class_ids: tuple[int, ...]
    names: tuple[str, ...]
    images: tuple[Path, ...]
    masks: tuple[Array | None, ...]


class PageProject(ProjectStore):
    """Everything that a person does on the page.

    A change may name the revision of the project that it was made on: it is refused where what it
    changes was changed since.
    """

    # images

    def add_image(self, name: str, data: bytes, max_pixels: int) -> str:
        """Store an image under a name that no other has, and give that name.

        Args:
            name: name of the file that was added.
            data: its bytes.
            max_pixels: largest number of pixels that it may have.

        Raises:
            InputError: not an image, a damaged one, one with too many pixels, or one that is
                there already.
        """
        image = decode_image(data, max_pixels, name)
        suffix, stem, digest = displayed_suffix(data), stem_of(name), digest_of(data)
        if suffix is None:
            suffix, content = ".png", io.BytesIO()
            Image.fromarray(image).save(content, "PNG")
            stored = content.getvalue()
        else:
            stored = data
        with self.lock:
            same = self.database.read("SELECT original FROM images WHERE digest = ?", [digest])
            if any(stem_of(original) == stem for (original,) in same):
                raise InputError(f"{name} is there already")
            taken = {Path(other).stem.lower() for other in self.state.images}
            others = (f"{stem}-{number}" for number in count(2))
            free = next(s for s in chain([stem], others) if s.lower() not in taken)
            file = self.files.put(IMAGES, free, suffix, stored)
            height, width = image.shape[:2]
            with self.change() as change:
                change.sql.execute(
                    "INSERT INTO images (name, file, original, digest, width, height, "
                    "marks_revision, version) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    [free + suffix, file, file_name(name), digest, width, height,
                     change.revision, change.revision],
                )  # fmt: skip
            return free + suffix

    def has(self, name: str) -> bool:
        """Say whether an image of a file's name was added."""
        return stem_of(name) in {Path(other).stem for other in self.state.images}

    def remove_image(self, name: str, revision: int | None = None) -> None:
        """Remove an image, its marks and its result.

        Raises:
            UnknownNameError: there is no such image.
            OutdatedError: its marks were changed since that revision.
        """
        with self.change() as change:
            image = self._check_marks(name, revision)
            change.left = _files(image)
            change.sql.execute("DELETE FROM images WHERE name = ?", [name])
            _note_marks(change)

    # classes

    def set_classes(self, names: Sequence[str], revision: int | None = None) -> None:
        """Name the classes, and add those beyond the present ones.

        Raises:
            InputError: a name that a class cannot have, the same name twice, fewer names than there
                are classes, or more ids than an image can hold.
            OutdatedError: the classes were changed since that revision.
        """
        cleaned = class_names([" ".join(name.split()) for name in names])
        with self.change() as change:
            self._check_classes(revision)
            ids = [each.id for each in self.state.classes]
            if len(cleaned) < len(ids):
                raise InputError(
                    f"found {len(cleaned)} names for {len(ids)} classes: name all of them, or "
                    "remove a class"
                )
            for class_id, name in zip(ids, cleaned, strict=False):
                change.sql.execute("UPDATE classes SET name = ? WHERE id = ?", [name, class_id])
            for name in cleaned[len(ids) :]:
                row = change.sql.execute("INSERT INTO classes (name) VALUES (?)", [name])
                if (row.lastrowid or 0) > LARGEST_ID:
                    raise InputError(
                        f"{LARGEST_ID} classes were made in this project, and the id of one that "
                        "was removed stays its own: start a new project"
                    )
            _note_classes(change)

    def remove_class(self, class_id: int, revision: int | None = None) -> None:
        """Remove a class from all marks; if it was learned, forget everything that was learned.

        Its id is never used again, so nothing that was marked before changes its meaning.

        Raises:
            InputError: there is no such class, or no other one.
            OutdatedError: the classes were changed since that revision.
        """
        with self.change() as change:
            self._check_classes(revision)
            ids = [each.id for each in self.state.classes]
            if class_id not in ids:
                raise InputError(f"there is no class {class_id}: reload the page")
            if len(ids) == 1:
                raise InputError("the last class cannot be removed: rename it")
            now, sql, fit = change.revision, change.sql, self.state.fit
            sql.execute(
                "UPDATE images SET version = ?, marks_revision = ? WHERE id IN "
                "(SELECT image FROM marked WHERE class = ?)", [now, now, class_id],
            )  # fmt: skip
            if fit is not None and class_id in {each.class_id for each in fit.classes}:
                results = [r.file for i in self.state.images.values() for r in i.results]
                change.left = [fit.file, *results]
                sql.execute(
                    "UPDATE images SET version = ? WHERE id IN (SELECT image FROM results)", [now]
                )
                sql.execute("DELETE FROM fits")
                sql.execute("DELETE FROM results")
            sql.execute("DELETE FROM classes WHERE id = ?", [class_id])
            _note_classes(change)

    # marks

    def mask(self, image: ImageRecord) -> Array:
        """Give the ids that are marked in an image, (height, width) uint8; 0 where none is.

        The ids of removed classes are not among them.

        Raises:
            InputError: somebody removed or damaged its file.
        """
        if image.without or image.mask is None:
            return np.zeros((image.height, image.width), np.uint8)
        kept = np.zeros(256, np.uint8)
        ids = [each.id for each in self.state.classes]
        kept[[*ids, 255]] = [*ids, 255]
        marked: Array = kept[read_mask(self.path(image.mask))]
        return marked

    def set_mask(self, name: str, ids: Array, revision: int | None = None) -> int:
        """Store the ids that a person marked, and give the new revision.

        Args:
            name: name of the image.
            ids: (height, width) uint8, of the image's size or of its `work_size`.
            revision: revision of the project that the marks were made on.

        Raises:
            UnknownNameError: there is no such image.
            InputError: an id that no class ever had, or another size.
            OutdatedError: its marks were changed since that revision, or one of the classes was
                removed.
        """
        with self.lock:
            image = self._check_marks(name, revision)
            size = image.width, image.height
            if ids.shape[::-1] not in (size, work_size(*size)):
                raise InputError(
                    f"the mask of {name} is {ids.shape[1]}x{ids.shape[0]}: expected "
                    f"{size[0]}x{size[1]}"
                )
            found = set(np.unique(ids).tolist()) - {0, 255}
            self._check_ids(name, found)
            mask = None
            if found:
                scaled = Image.fromarray(ids).resize(size, Image.Resampling.NEAREST)
                mask = self.files.put(MARKS, Path(name).stem, ".png", ids_file(scaled, max(found)))
            with self.change() as change:
                self._set_marks(change, image, mask, sorted(found), False)
            return self.revision

    def _check_ids(self, name: str, found: set[int]) -> None:
        unknown = sorted(found - {each.id for each in self.state.classes})
        if not unknown:
            return
        made = self.database.read("SELECT seq FROM sqlite_sequence WHERE name = 'classes'")
        if unknown[-1] <= made[0][0]:
            raise OutdatedError(
                f"the mask of {name} holds the ids {unknown} of classes that were removed: reload "
                "the page"
            )
        raise InputError(
            f"the mask of {name} holds the ids {unknown}: expected those of the "
            f"{len(self.state.classes)} classes"
        )

    def set_without(self, name: str, without: bool, revision: int | None = None) -> int:
        """Say that an image shows none of the classes, and give the new revision.

        Such an image is an example. What is marked in it is stored, and counts again when this is
        taken back.

        Raises:
            UnknownNameError: there is no such image.
            OutdatedError: its marks were changed since that revision.
        """
        with self.change() as change:
            image = self._check_marks(name, revision)
            self._set_marks(change, image, image.mask, image.marked, without)
        return self.revision

    def forget_marks(self, name: str, revision: int | None = None) -> int:
        """Make an image an example no more, and give the new revision.

        Raises:
            UnknownNameError: there is no such image.
            OutdatedError: its marks were changed since that revision.
        """
        with self.change() as change:
            self._set_marks(change, self._check_marks(name, revision), None, (), False)
        return self.revision

    def _set_marks(
        self,
        change: Change,
        image: ImageRecord,
        mask: str | None,
        marked: Sequence[int],
        without: bool,
    ) -> None:
        change.left = [] if image.mask is None else [image.mask]
        change.sql.execute(
            "UPDATE images SET mask = ?, without = ?, marks_revision = ?, version = ? "
            "WHERE name = ?", [mask, without, change.revision, change.revision, image.name],
        )  # fmt: skip
        number = "(SELECT id FROM images WHERE name = ?)"
        change.sql.execute(f"DELETE FROM marked WHERE image = {number}", [image.name])
        for class_id in marked:
            change.sql.execute(f"INSERT INTO marked VALUES ({number}, ?)", [image.name, class_id])
        _note_marks(change)

    def _check_marks(self, name: str, revision: int | None) -> ImageRecord:
        image = self.record(name)
        if revision is not None and image.marks_revision > revision:
            raise OutdatedError(f"{name} was marked in another window meanwhile: reload the page")
        return image

    def _check_classes(self, revision: int | None) -> None:
        if revision is not None and self.state.classes_revision > revision:
            raise OutdatedError(
                "the classes were changed in another window meanwhile: reload the page"
            )

    # tasks and results

    def examples(self, revision: int | None = None) -> Examples:
        """Give the example images and their masks.

        Raises:
            InputError: somebody removed or damaged a file.
            OutdatedError: something was marked since that revision.
        """
        with self.reading() as state:
            if revision is not None and state.marks_revision > revision:
                raise OutdatedError(
                    "something was marked in another window meanwhile: look at it, and learn again"
                )
            ids = [each.id for each in state.classes]
            place = np.zeros(256, np.uint8)
            place[255] = 255
            place[ids] = range(1, len(ids) + 1)
            images = [image for image in state.images.values() if image.is_example]
            return Examples(
                tuple(ids),
                tuple(each.name for each in state.classes),
                tuple(self.path(image.file) for image in images),
                tuple(None if image.without else place[self.mask(image)] for image in images),
            )

    def save_task(self, segmenter: FewShotSegmenter, class_ids: Sequence[int]) -> FitRecord:
        """Store what was learned of some classes; every earlier result becomes an old one.

        Raises:
            InputError: one of the classes was removed meanwhile.
        """
        data = task_file(segmenter)
        thresholds = [rule.threshold for rule in segmenter.thresholds_.values()]
        with self.lock:
            if not set(class_ids) <= {each.id for each in self.state.classes}:
                raise InputError("a class was removed while it was learned: learn again")
            file = self.files.put(TASKS, "task", ".svf", data)
            with self.change() as change:
                self._set_fit(change, file, class_ids, thresholds)
            fit = read_fit(self.database)
            assert fit is not None
            return fit

    def _set_fit(
        self, change: Change, file: str, class_ids: Sequence[int], thresholds: Sequence[float]
    ) -> None:
        change.left = [] if self.state.fit is None else [self.state.fit.file]
        number = change.sql.execute("INSERT INTO fits (file) VALUES (?)", [file]).lastrowid
        change.sql.execute("DELETE FROM fits WHERE number < ?", [number])
        change.sql.executemany(
            "INSERT INTO learned VALUES (?, ?, ?, ?, ?)",
            [
                (number, place, class_id, threshold, threshold)
                for place, (class_id, threshold) in enumerate(
                    zip(class_ids, thresholds, strict=True)
                )
            ],
        )

    def save_result(self, name: str, result: Segmentation, fit: FitRecord) -> None:
        """Store the probabilities that were predicted in an image: thresholds may still change.

        Raises:
            InputError: what was learned was forgotten meanwhile.
        """
        files = [probability_file(each) for each in result.probabilities]
        with self.lock:
            image = read_image(self.database, name)
            if image is None:  # removed while it was predicted
                return
            present = read_fit(self.database)
            if present is None or present.number != fit.number:
                raise InputError("a class was removed, and with it what was learned: learn again")
            stored = [
                self.files.put(RESULTS, f"{Path(name).stem}-{each.class_id}", ".png", data)
                for each, data in zip(fit.classes, files, strict=True)
            ]
            with self.change() as change:
                change.left = [each.file for each in image.results]
                number = "(SELECT id FROM images WHERE name = ?)"
                change.sql.execute(f"DELETE FROM results WHERE image = {number}", [name])
                change.sql.executemany(
                    f"INSERT INTO results VALUES ({number}, ?, ?, ?, ?, ?)",
                    [
                        (name, learned.class_id, fit.number, file, float(confidence), bool(here))
                        for learned, file, confidence, here in zip(
                            fit.classes, stored, result.confidence.values(),
                            result.present.values(), strict=True,
                        )
                    ],
                )  # fmt: skip
                change.sql.execute(
                    "UPDATE images SET version = ? WHERE name = ?", [change.revision, name]
                )

    def set_threshold(self, class_id: int, value: float) -> None:
        """Change the probability from which a pixel belongs to a class.

        Raises:
            InputError: not between 0 and 1, or not a class that was learned.
        """
        with self.change() as change:
            fit = self.state.fit
            learned = () if fit is None else [each.class_id for each in fit.classes]
            if class_id not in learned or not 0 < value < 1:
                raise InputError(
                    f"the threshold of class {class_id} is {value}: expected between 0 and 1, and "
                    "a class that was learned"
                )
            change.sql.execute("UPDATE learned SET threshold = ? WHERE class = ?",
                               [value, class_id])  # fmt: skip


def _note_marks(change: Change) -> None:
    change.sql.execute("UPDATE project SET marks_revision = ?", [change.revision])


def _note_classes(change: Change) -> None:
    change.sql.execute(
        "UPDATE project SET classes_revision = ?, marks_revision = ?", [change.revision] * 2
    )


def _files(image: ImageRecord) -> list[str]:
    """All files of an image."""
    own = [image.file, image.mask, *(each.file for each in image.results)]
    return [file for file in own if file is not None]
