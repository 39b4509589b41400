# COMFYUI_PATH=/path/to/ComfyUI uses that one; COMFYUI_COMMIT=v0.25.0 (or a commit) fetches another.
PYTHON ?= python3
PORT ?= 8188
# How many processes `make test` runs tests in: each starts a ComfyUI of its own (1 GB). More than there are processors
# slow the browser's, which take longest.
JOBS ?= 2
# The oldest that are supported: torch.OutOfMemoryError came with PyTorch 2.5.
OLDEST_PYTHON ?= python3.10
OLDEST_TORCH ?= 2.5.0
# Asked for after set-up, because set-up makes the environment.
RUN = $(shell $(PYTHON) scripts/comfy_env.py)

.PHONY: demo comfyui test test-oldest coverage lint locales workflows thumbnails model-pictures pictures setup

demo: setup  ## the bundled photo to 4x through a real ComfyUI; writes output/demo_*.png
	@$(RUN) scripts/demo.py

comfyui: setup  ## leaves ComfyUI running with the pack in it
	@$(RUN) scripts/serve.py --port $(PORT)

test: setup
	@$(RUN) -m pytest -n $(JOBS) --dist worksteal

# Not in .ci/run, for the time and room of a second PyTorch.
test-oldest:  ## tests/core with the oldest Python and PyTorch, in .venv-oldest (about 6 GB)
	@[ -x .venv-oldest/bin/pip ] || PYENV_VERSION=3.10 $(OLDEST_PYTHON) -m venv --clear .venv-oldest || \
		{ echo "test-oldest: no $(OLDEST_PYTHON) that can make an environment: see README, Try it"; exit 1; }
	@.venv-oldest/bin/python -m pip install -q --disable-pip-version-check torch==$(OLDEST_TORCH) -r requirements.txt \
		aiohttp av huggingface_hub hypothesis numpy pillow pyarrow pytest pytest-xdist setuptools tqdm wheel
	@.venv-oldest/bin/python -m pytest -n $(JOBS) --dist worksteal tests/core

coverage: setup  ## prints which lines and branches of pid_core the tests of tests/core and tests/fuzz reach
	@$(RUN) -m pytest -n $(JOBS) --dist worksteal tests/core tests/fuzz --cov=pid_core --cov-branch --cov-report=term

lint: setup
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@mkdir -p .mypy_cache && ln -sfn .. .mypy_cache/pidkit
	@$(RUN) -m mypy

locales: setup  ## writes locales/en from the nodes' own words
	@$(RUN) scripts/locales.py

workflows: setup  ## writes example_workflows from scripts/workflow_graphs.py
	@$(RUN) scripts/make_workflows.py

thumbnails: setup  ## draws example_workflows/*.jpg with the bundled model and by code
	@$(RUN) scripts/workflow_pictures.py

model-pictures: setup  ## all that show what the bundled model draws: README's, the examples' and the tour's
	@$(RUN) scripts/readme_pictures.py
	@$(RUN) scripts/workflow_pictures.py pid_upscale pid_upscale_demo pid_context_window_demo pid_tune_per_image \
		pid_sigma_sweep pid_paint_sigma pid_touch_up pid_upscale_and_check pid_folder_to_4k \
		pid_folder_auto_strength
	@$(RUN) -m pytest -q tests/browser/test_tour.py && $(RUN) scripts/pictures.py tour

pictures: setup  ## screenshots for the docs, from the browser tests
	@$(RUN) -m pytest -q tests/browser && $(RUN) scripts/pictures.py

# Exit code 3: no ComfyUI. The core still works, so only CI stops there.
setup:
	@$(PYTHON) scripts/setup.py || { code=$$?; [ $$code -eq 3 ] && [ "$$CI" != true ]; }
