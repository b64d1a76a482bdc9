"""Choose the size of images by the time that one may take, measured."""

import logging
import time
from dataclasses import replace

import numpy as np

from svfseg.data.images import Array
from svfseg.data.index import Sample
from svfseg.errors import InputError
from svfseg.models.decoder import Decoder
from svfseg.models.head import ComparingHead
from svfseg.segmenter.inference import Predictor

logger = logging.getLogger(__name__)

SIZES = (256, 320, 384, 448, 512, 576, 640, 768, 896, 1024, 1280)
# Times that a query is measured; the fastest counts, as nothing makes one too fast.
ROUNDS = 2


def affordable_size(predictor: Predictor, image: Array, seconds: float) -> int:
    """Choose the largest of `SIZES` at which one image takes no longer than a time.

    Args:
        predictor: the model, which must take images of any shape.
        image: (height, width, 3), for its shape.
        seconds: time that an image may take.

    Raises:
        InputError: a model whose size is fixed.
    """
    head = predictor.head
    if not isinstance(head, ComparingHead):
        raise InputError("seconds_per_image is for models that take images of any size: set size")
    best = SIZES[0]
    for size in SIZES:
        taken = query_seconds(replace(predictor, size=size), image)
        if taken > seconds:
            if size == best:
                logger.warning("%.2f s an image at the smallest size, %d pixels", taken, size)
            break
        best = size
    return best


def query_seconds(predictor: Predictor, image: Array) -> float:
    """Measure how long one image takes with a decoder of one class."""
    mask = np.zeros(image.shape[:2], np.uint8)
    mask[: -(-len(mask) // 2)] = 1
    mask[0] = mask[-1] = 1  # whatever row is left of a narrow image shows it
    (features,) = predictor.encode_supports([Sample(image, mask)], [1])
    with_decoder = replace(
        predictor,
        decoder=Decoder(predictor.head.backbone.channels, 1).eval().to(predictor.device),
    )
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        with_decoder.predict_maps([image], {1: [features[1]]})
        times.append(time.perf_counter() - start)
    return min(times)
