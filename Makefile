# COMFYUI_PATH=/path/to/ComfyUI uses that one; COMFYUI_COMMIT=v0.25.0 (or a commit) fetches another.
PYTHON ?= python3
PORT ?= 8188
# Asked for after set-up, because set-up makes the environment.
RUN = $(shell $(PYTHON) scripts/comfy_env.py)

.PHONY: demo comfyui test lint locales workflows thumbnails pictures setup

demo: setup  ## the bundled photo to 4x through a real ComfyUI; writes output/demo_*.png
	@$(RUN) scripts/demo.py

comfyui: setup  ## leaves ComfyUI running with the pack in it
	@$(RUN) scripts/serve.py --port $(PORT)

test: setup
	@$(RUN) -m pytest

lint: setup
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .

locales: setup  ## writes locales/en from the nodes' own words
	@$(RUN) scripts/locales.py

workflows: setup  ## writes example_workflows from scripts/workflow_graphs.py
	@$(RUN) scripts/make_workflows.py

thumbnails: setup  ## draws example_workflows/*.jpg with the bundled model and by code
	@$(RUN) scripts/workflow_pictures.py

pictures: setup  ## screenshots for the docs, from the browser tests
	@$(RUN) -m pytest -q tests/browser && $(RUN) scripts/pictures.py

# Exit code 3: no ComfyUI. The core still works, so only CI stops there.
setup:
	@$(PYTHON) scripts/setup.py || { code=$$?; [ $$code -eq 3 ] && [ "$$CI" != true ]; }
