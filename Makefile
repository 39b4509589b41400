# For those who have make: each target is a command of scripts/dev.py, which needs Python and git only, on any system.
# These variables pass through: PORT, JOBS, OLDEST_PYTHON, OLDEST_TORCH, COMFYUI_PATH, COMFYUI_COMMIT.
PYTHON ?= python3

COMMANDS = demo comfyui test test-oldest coverage lint locales workflows thumbnails model-pictures pictures setup

.PHONY: $(COMMANDS)
$(COMMANDS):
	@$(PYTHON) scripts/dev.py $@
