"""What MindSpore's graphs ask of a device: graphs, traces, verdicts."""
