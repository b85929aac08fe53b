"""The paper's tables and figures: paper (its numbers and runs), jobs, stages, running,
collecting, markdown, pictures."""
