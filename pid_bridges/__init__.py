"""What encodes pictures and texts for `pid_core` outside ComfyUI's server.

A module for each library that can; it has a class with the calls of `pid_core.upscale.bridge.Bridge`, and is imported
when it is asked for: nothing here is needed to import `pid_core`.
"""
