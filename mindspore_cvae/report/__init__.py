"""A run on one page: sections, page, charts, specimens."""
