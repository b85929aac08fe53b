"""A run on one page: sections, page, charts, specimens; and of several: comparison."""
