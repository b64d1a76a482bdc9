"""A machine-learning backend for Label Studio: masks from the annotations submitted there."""
