"""The laboratory: training, evaluation and studies that compare with the literature."""
