"""A run on one page: sections, page, charts, explanations, specimens."""
