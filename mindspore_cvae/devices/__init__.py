"""Where it computes: choosing, parallel (processes that share a batch), ranks and launcher
(what starts them), doctor (what each device needs)."""
