"""This machine: where ComfyUI and its models are, what is there, whether it is ready. For the command line."""
