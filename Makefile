# make bench, make test: on a machine with Python, a C++ compiler, make and a package index.
#
#   make test                          in .venv, made when needed, with the versions of constraints.txt
#   make test VENV=none PYTHON=python  in an existing environment, keeping the torch that is there
#   make test TEST_ARGS="-k linear"    more arguments for pytest;  BENCH_ARGS= for the full benchmark
#   make test-torch TORCH=2.14.1       under another torch, in build/torch-2.14.1

PYTHON ?= python3
VENV ?= .venv
TEST_ARGS ?=
# Processes that share the Python tests, each with one thread (tests/conftest.py).
WORKERS ?= 2
BENCH_ARGS ?= --quick
# The environments of `make test-torch` and `make test-oldest`, and what the second runs.
TORCH_VENV ?= build/torch-$(TORCH)
OLDEST_VENV ?= build/torch-oldest
OLDEST_TESTS ?= $(wildcard $(addprefix tests/ops/test_,cross_entropy*.py embedding_*.py linear_tanh*.py)) \
	tests/ops/test_numeric_options.py tests/compile \
	$(patsubst %,tests/mlp/test_%.py,evaluate train_steps) \
	$(patsubst %,tests/backends/test_%.py,triton_backend triton_tuning versions) \
	tests/cli/test_cli.py::test_train_sample_evaluate
# What `make cuda-check` looks at; the default is built by it first.
CUDA_LIBRARY ?= build/cuda/_cuda.so

ifeq ($(VENV),none)
py := $(PYTHON)
state := build/$(subst /,_,$(PYTHON))
versions :=
else
py := $(VENV)/bin/python
state := $(VENV)
versions := -c constraints.txt
endif

# Empty files that say when the package (editable) and the tools were last installed.
installed := $(state)/.mlpkern-installed
tools := $(state)/.mlpkern-tools

native := $(shell find csrc -type f 2>/dev/null)
cpp := $(shell find csrc tests/cpp tests/cuda tests/fiber -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')
scripts = $(shell $(py) -c "import sysconfig; print(sysconfig.get_path('scripts'))")
with_tools = PATH="$(scripts):$$PATH"
# Around a command: what begins; then how long it took, with its exit status.
begin = echo "make: $(1)"; started=$$(date +%s)
end = status=$$?; echo "make: $(1): $$(($$(date +%s) - started)) s"; exit $$status
not_installed = echo "make: pip could not install the package ($(versions)), see above" >&2; exit 1

.PHONY: help test test-torch test-oldest bench lint format docs packaging rehearse ctest sanitize neon \
	cuda-check cuda-budget cuda-library triton-check compile-alone mutate clean
.DEFAULT_GOAL := help

help:
	@echo "make test      install, then run the Python tests in $(WORKERS) processes (WORKERS, TEST_ARGS)"
	@echo "make test-torch TORCH=2.14.1  the same under any torch, in an environment of its own (TORCH_VENV)"
	@echo "make test-oldest  the tests of the ops under the oldest versions (OLDEST_VENV, OLDEST_TESTS)"
	@echo "make bench     install, then run the benchmark into bench/out (BENCH_ARGS, now: $(BENCH_ARGS))"
	@echo "make ctest     build and run the C++ tests of the kernels, warnings as errors"
	@echo "make sanitize  the same under AddressSanitizer and UBSan (QUICK=1: fewer cases of the CUDA kernels)"
	@echo "make neon      cross-compile them for aarch64, run them under QEMU (QUICK=7: one in seven cases)"
	@echo "make cuda-check   compile the CUDA kernels for every target and check their machine code (no GPU)"
	@echo "make cuda-budget  write tests/cuda/machine_code/budget.json anew: their registers, stack, shared memory"
	@echo "make triton-check compile the Triton kernels for sm_80, sm_90, sm_100 and check them too (TARGETS=90)"
	@echo "make compile-alone  run the command at the top of every kernel file"
	@echo "make mutate    leave out each barrier and check of the CUDA kernels: a test must fail (SAMPLE=8: eight)"
	@echo "make lint      ruff, clang-format, mypy;  make format applies the formatters"
	@echo "make docs      build the documentation into build/site, warnings as errors"
	@echo "make packaging build and install the package in fresh environments"
	@echo "make rehearse  run every line of bench/gpu.sh that needs no GPU"
	@echo "make clean     remove what was built; the environment stays"
	@echo "VENV=$(VENV) (none: use PYTHON as it is), PYTHON=$(PYTHON)"

test: $(installed)
	@$(call begin,tests in $(WORKERS) processes); \
	$(py) -m pytest -n $(WORKERS) --dist worksteal $(TEST_ARGS); $(call end,tests)

test-torch:
	$(if $(TORCH),,$(error name a version of torch: make test-torch TORCH=2.14.1))
	$(MAKE) test VENV=$(TORCH_VENV) versions='-c .ci/constraints-tools.txt torch==$(TORCH)'

test-oldest:
	$(MAKE) test VENV=$(OLDEST_VENV) versions='-c .ci/constraints-oldest.txt' \
		TEST_ARGS='$(OLDEST_TESTS) $(TEST_ARGS)'

bench: $(installed)
	@$(call begin,benchmark into bench/out); \
	$(py) bench/run.py --out bench/out $(BENCH_ARGS); $(call end,benchmark)

lint: $(tools)
	$(py) -m ruff check .
	$(py) -m ruff format --check .
	$(with_tools) clang-format --dry-run -Werror $(cpp)
	$(py) -m mypy

format: $(tools)
	$(py) -m ruff check --fix .
	$(py) -m ruff format .
	$(with_tools) clang-format -i $(cpp)

ctest: $(tools)
	$(with_tools) .ci/ctest build/ctest -DMLPKERN_WERROR=ON

sanitize: $(tools)
	$(with_tools) $(if $(QUICK),MLPKERN_TEST_QUICK=1 ).ci/ctest build/sanitize -DMLPKERN_WERROR=ON -DMLPKERN_SANITIZE=ON

neon: $(tools)
	$(with_tools) $(if $(QUICK),MLPKERN_TEST_QUICK=$(QUICK) ).ci/neon
	MLPKERN_NEON_CHECK=1 $(py) -m pytest tests/backends/test_neon_objects.py

cuda-check: $(tools) cuda-library
	$(with_tools) $(py) tests/cuda/machine_code/check.py $(CUDA_LIBRARY)
# Where the tests otherwise skip what is missing.
	$(with_tools) MLPKERN_CUDA_CHECK=1 $(py) -m pytest \
		tests/gpu/test_cuda_machine_code.py tests/gpu/test_cuda_build.py

cuda-budget: $(tools) cuda-library
	$(with_tools) $(py) tests/cuda/machine_code/check.py --write $(CUDA_LIBRARY)

cuda-library: $(tools)
ifeq ($(CUDA_LIBRARY),build/cuda/_cuda.so)
	$(with_tools) .ci/cuda build/cuda
endif

triton-check: $(tools)
	$(py) tests/triton_kernels/check.py $(if $(TARGETS),-t $(TARGETS))

compile-alone: $(tools)
	MLPKERN_COMPILE_ALONE=1 $(py) -m pytest tests/packaging/test_compile_alone.py

mutate: $(tools)
	$(with_tools) $(py) tests/cuda/mutation/mutate.py $(if $(SAMPLE),--sample $(SAMPLE))

docs: $(tools)
	NO_MKDOCS_2_WARNING=1 $(py) -m mkdocs build --strict
	$(py) -m pytest -q tests/docs/test_reference.py

packaging: $(tools)
	$(py) -m pytest -m packaging tests/packaging

rehearse: $(tools)
	PYTHON=$(py) bench/gpu.sh --rehearse

clean:
	rm -rf build dist *.egg-info mlpkern/_C*.so mlpkern/_cuda*.so mlpkern/_build_info.json
	rm -f $(installed) $(tools)

ifneq ($(VENV),none)
$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(installed) $(tools): | $(VENV)/bin/python
endif

$(installed): setup.py CMakeLists.txt pyproject.toml $(wildcard constraints.txt .ci/constraints*.txt) $(native)
	@$(call begin,install with test bench: packages and the compiled kernels); \
	$(py) -m pip install $(versions) -e '.[test,bench]' || { $(not_installed); }; $(call end,install)
	@mkdir -p $(@D) && touch $@

$(tools): pyproject.toml $(wildcard constraints.txt .ci/constraints*.txt)
	@$(call begin,install with test bench dev docs: packages and the compiled kernels); \
	$(py) -m pip install $(versions) -e '.[test,bench,dev,docs]' || { $(not_installed); }; $(call end,install)
	@mkdir -p $(@D) && touch $@ $(installed)
