"""Singular value fine-tuning for any PyTorch model: factor, train, save, merge.

Source: Sun, Chen, He, Wang, Feng, Han, Ding, Cheng, Li, Wang: Singular Value Fine-tuning:
Few-shot Segmentation requires Few-parameters Fine-tuning. NeurIPS 2022.
"""

from svfseg.svf.adapter import load_adapter, save_adapter
from svfseg.svf.apply import (
    Summary,
    apply_svf,
    merge_svf,
    plan_svf,
    singular_values,
    svf_parameters,
    svf_summary,
)
from svfseg.svf.factorize import Factors, Spectrum, factorize, recompose, spectrum
from svfseg.svf.fusion import fuse, unfuse
from svfseg.svf.layers import set_route

__all__ = [
    "Factors",
    "Spectrum",
    "Summary",
    "apply_svf",
    "factorize",
    "fuse",
    "load_adapter",
    "merge_svf",
    "plan_svf",
    "recompose",
    "save_adapter",
    "set_route",
    "singular_values",
    "spectrum",
    "svf_parameters",
    "svf_summary",
    "unfuse",
]
