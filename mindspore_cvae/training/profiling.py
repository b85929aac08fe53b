"""Where the time of a training step goes: MindSpore's profiler over a few steps."""

from __future__ import annotations

from pathlib import Path

FIRST_STEP = 20
"""Steps before the first profiled one: the runtime tunes itself in first launches of a graph."""
STEPS = 10
"""How many steps are profiled."""


class Profiler:
    """Training without a profiler."""

    def step(self) -> None:
        """Tells that a training step ended."""

    def close(self) -> None:
        """Tells that training ended, however it did."""


class StepProfiler(Profiler):
    """Profiles ten training steps after the twentieth of this process; what comes before and after
    runs at full speed.

    Args:
        folder: where MindSpore's profiler writes a folder of its own: ``trace_view.json`` (a
            timeline) and, on CPU, ``cpu_op_type_info_0.csv`` (milliseconds by operator).
        device: CPU, GPU or Ascend.
    """

    def __init__(self, folder: Path, device: str):
        from mindspore.profiler import ProfilerActivity, profile, tensorboard_trace_handler

        activities = {
            "CPU": [ProfilerActivity.CPU],
            "GPU": [ProfilerActivity.CPU, ProfilerActivity.GPU],
            "Ascend": [ProfilerActivity.CPU, ProfilerActivity.NPU],
        }
        self.profiler = profile(
            activities=activities[device],
            start_profile=False,
            on_trace_ready=tensorboard_trace_handler(str(folder)),
        )
        self.steps = 0
        self.is_on = False

    def step(self) -> None:
        """Tells that a training step ended."""
        self.steps += 1
        if self.steps == FIRST_STEP:
            self.profiler.start()
            self.is_on = True
        elif self.is_on:
            self.profiler.step()
            if self.steps == FIRST_STEP + STEPS:
                self.close()

    def close(self) -> None:
        """Tells that training ended, however it did; a profile that has begun is written."""
        if self.is_on:
            self.is_on = False
            self.profiler.stop()
