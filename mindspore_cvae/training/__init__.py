"""How a model learns: noise, steps, building, schedules, scaling, profiling, trainer."""
