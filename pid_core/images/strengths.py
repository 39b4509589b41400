"""degrade_sigma in words: the strengths that PiD Upscale names and that PiD Sigma Tuner has buttons for."""

STRENGTHS = {"faithful": 0.0, "repair": 0.3, "rebuild": 0.6}
AUTO, OWN = "auto", "own value"  # chosen from the picture; as a number
