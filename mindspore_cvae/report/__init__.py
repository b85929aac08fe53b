"""A run on one page: sections, page, charts, specimens; these in TensorBoard: projector; and of
several runs: comparison."""
