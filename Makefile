# Everything rests on `make install`, which makes .venv/ from constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# On a machine that has the packages already: make test-gpu PYTHON_GPU=python3
PYTHON_GPU ?= $(BIN)/python
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
define ship
	rm -rf stepdpo/tinymath/$(2) && mkdir stepdpo/tinymath/$(2)
	cp $(1)/*.json $(1)/*.jinja $(1)/*.safetensors stepdpo/tinymath/$(2)/
endef

.PHONY: bench-methods help install demo demo-quick demo-seeds demo-grid tinymath-short test test-engine test-long test-slow test-gpu test-browser test-all soak bench bench-quick bench-gpu bench-processes bench-search bench-stream format lint types docs wheel tinymath check clean bench-sampling bench-pairs-stream bench-judges bench-step-losses bench-values bench-losses bench-crew bench-decoding

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

install: $(VENV)/installed ## make .venv/ with everything, at the tested versions

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "stepdpo needs Python >= 3.11 (PYTHON=python3.11 make ...)")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,docs]'
	@touch $@

demo: install ## what the first wrong step is worth: seven ways of training on the same samples (four to five minutes on two cores)
	$(BIN)/python -m benchmarks.demo

demo-quick: install ## the same commands on less, to see that they work (two minutes)
	$(BIN)/python -m benchmarks.demo --quick

demo-seeds: install ## the same with five seeds; writes docs/demo.md (half an hour)
	$(BIN)/python -m benchmarks.demo --seeds 5

demo-grid: install ## its settings, tried on held-out problems (twenty minutes)
	$(BIN)/python -m benchmarks.demo --grid

test: install ## the default tests: CPU, offline, a few minutes
	$(BIN)/python -m pytest -q -n 2

SLOW ?= slow
test-engine: install # several real DeepSpeed processes at a time
	$(BIN)/python -m pytest -q -m '$(SLOW) and not gpu and not browser' tests/training/engine

test-long: install # all others
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m '$(SLOW) and not gpu and not browser' --ignore=tests/training/engine

test-slow: test-engine test-long ## the long tests: everything with everything, real DeepSpeed processes (an hour)

soak: install ## kills, spoilt files, full discs and planted keys by the hundred: docs/reliability.md (forty minutes)
	$(BIN)/python -m pytest -q -s -m '' tests/soak tests/pairs/test_pairs_kill.py \
		tests/cli/test_orphans.py tests/cli/test_cli_secrets.py tests/cli/test_mistaken_words.py \
		tests/models/test_integrity.py tests/runtime/test_checkpoint_files.py

test-gpu: $(if $(filter $(BIN)/python,$(PYTHON_GPU)),install) ## the tests that need one CUDA device
	PYTHONPATH=. $(PYTHON_GPU) -m pytest -q -m gpu tests/test_gpu.py

test-browser: install ## the page of `stepdpo chat --web` in a Chromium (a minute); skipped, with the reason, where there is none
	$(BIN)/python -m pytest -q -m browser tests/cli/test_chat_browser.py

test-all: test test-slow ## both

bench: install ## time stepdpo beside its peers (about 20 minutes on two quiet cores); rewrites docs/speed.md
	OMP_NUM_THREADS=2 $(BIN)/python -m benchmarks

bench-quick: install ## the same with fewer cases, pairs and rounds (a few minutes)
	OMP_NUM_THREADS=2 $(BIN)/python -m benchmarks --quick

bench-gpu: $(if $(filter $(BIN)/python,$(PYTHON_GPU)),install) ## tokens/s, utilisation and memory on one CUDA device
	CUDA_VISIBLE_DEVICES=$${CUDA_VISIBLE_DEVICES:-0} $(PYTHON_GPU) -m benchmarks.gpu

bench-processes: install ## what a second process is worth, each with a core of its own (ten minutes)
	$(BIN)/python benchmarks/processes.py

bench-search: install ## how well a tree search tells right steps from wrong ones on tinymath (ten minutes)
	$(BIN)/python -m benchmarks.search

bench-stream: install ## a stream of 1,000,000 pairs: time to the first step, memory while it runs (ten minutes)
	$(BIN)/python -m benchmarks.stream
	$(BIN)/python -m benchmarks.stream --text 50000 --steps 100

bench-sampling: install ## samples a second beside `generate` of transformers (ten minutes)
	OMP_NUM_THREADS=2 $(BIN)/python -m benchmarks.sampling
	OMP_NUM_THREADS=2 $(BIN)/python -m benchmarks.sampling --model random --tokens 96

bench-step-losses: install ## what losses on steps cost beside DPO (five minutes)
	OMP_NUM_THREADS=2 $(BIN)/python -m benchmarks.step_losses

bench-losses: install ## every loss on the demo's samples beside its controls, three seeds; writes docs/losses.md (an hour and a half)
	$(BIN)/python -m benchmarks.losses

bench-decoding: install ## what decoders are worth and cost on tinymath, and a greedy evaluation beside `generate`; writes docs/decoding.md
	$(BIN)/python -m benchmarks.decoding

bench-values: install ## how well value heads tell right beginnings from wrong ones on tinymath (twenty minutes)
	$(BIN)/python -m benchmarks.values

bench-pairs-stream: install ## 100,000 problems through `stepdpo pairs`: memory while they are worked on (five minutes)
	$(BIN)/python -m benchmarks.pairs_stream
bench-methods: install ## ways of making pairs side by side: yield, share that is right, what training gives (fifteen minutes)
	OMP_NUM_THREADS=2 $(BIN)/python -m benchmarks.methods

bench-crew: install ## problems a second of one worker process and of two, on two cores that nothing else uses (ten minutes)
	$(BIN)/python -m benchmarks.crew

bench-judges: install ## how often roll-outs find the first wrong step, and at what cost (ten minutes); writes benchmarks/judges.json
	$(BIN)/python -m benchmarks.judges

format: install ## format the code
	$(BIN)/ruff format -q stepdpo tests benchmarks
	$(BIN)/ruff check -q --fix stepdpo tests benchmarks

lint: install ## ruff
	$(BIN)/ruff check stepdpo tests benchmarks

types: install ## mypy, strict
	$(BIN)/mypy

docs: install ## build the documentation, strictly, into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

wheel: install ## build the wheel and use it from another folder
	rm -rf dist && $(BIN)/python -m build --wheel --outdir dist . > /dev/null
	$(BIN)/python tests/support/try_wheel.py dist

tinymath: install ## make the demo's base again, from the miniature for short stories (twelve minutes of one core)
	OMP_NUM_THREADS=1 $(BIN)/stepdpo train experiment=tinymath_long_sft run=tinymath-long force=true
	$(call ship,runs/tinymath-long/model,long_model)

# What ships was made so by an earlier version, which drew the pairs in another order: this makes another one, with
# which every figure about it, and the demo's base, would be another (docs/reproduce.md).
tinymath-short: install ## make a miniature for short stories, and its preferences (half an hour on two cores)
	OMP_NUM_THREADS=2 $(BIN)/stepdpo train experiment=tinymath_sft run=tinymath-sft force=true
	$(call ship,runs/tinymath-sft/checkpoints/step-001500,model)
	rm -f stepdpo/tinymath/model/MANIFEST.json stepdpo/tinymath/model/trainer.json
	$(BIN)/stepdpo pairs limit=2500 run=tinymath-pairs force=true
	cp runs/tinymath-pairs/preferences.jsonl stepdpo/tinymath/preferences.jsonl

check: lint types test docs wheel ## what a change must pass

clean: ## remove what was built (not runs/)
	rm -rf dist site build .pytest_cache .mypy_cache .ruff_cache
