# The commands people type. `make help` lists them; each one prints what it does.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

UV_VERSION := 0.13.9
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/video-restoration
# uv from the PATH, else a copy of our own, outside the repository so that all checkouts share it.
UV := $(or $(shell command -v uv),$(CACHE)/tools/uv-$(UV_VERSION)/bin/uv)
PYTHON := .venv/bin/python
REPORTS := out/reports
PYTEST := OMP_NUM_THREADS=1 $(PYTHON) -m pytest --durations=10
# Where an image or a CI service sets this, every process compiles every library anew: 1.0 of 1.9 s of CPU time to start
# the operator, 1.4 of 3.8 s to load torch. Tests start hundreds of processes.
export PYTHONDONTWRITEBYTECODE :=
# More processes than two cores: half of the tests wait for controllers and clocks.
PARALLEL := -n 4 --dist loadgroup --no-loadscope-reorder

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

# ---- setting up

$(CACHE)/tools/uv-%/bin/uv:
	@echo "installing uv $* with pip into $(CACHE)/tools/uv-$*"
	@mkdir -p $(CACHE)/tools
	@python3 -m venv $(CACHE)/tools/uv-$*.partial
	@$(CACHE)/tools/uv-$*.partial/bin/python -m pip install --quiet --disable-pip-version-check uv==$*
	@# Scripts in a virtual environment name its path, the program uv does not: it survives the renaming.
	@rm -rf $(CACHE)/tools/uv-$* && mv $(CACHE)/tools/uv-$*.partial $(CACHE)/tools/uv-$*

.venv/.complete: pyproject.toml uv.lock | $(UV)
	@echo "installing the locked Python dependencies into .venv (torch among them: 5 GB, minutes the first time)"
	@$(UV) sync --frozen --all-extras --python 3.11
	@touch $@

.PHONY: setup
setup: .venv/.complete ## Python environment with all locked dependencies in .venv

.PHONY: test-tools
test-tools: setup
	@$(PYTHON) -m hack.prerequisites

# ---- the main job

.PHONY: demo
demo: test-tools ## Restore a real clip on a real cluster and show what came out (KUBECONFIG, REGISTRY, S3_ENDPOINT: yours)
	@$(PYTHON) -m hack.demo

# ---- checks

.PHONY: lint
lint: setup ## Style, types, import rules, and generated files that no longer match their source
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy
	.venv/bin/lint-imports
	$(PYTHON) -m hack.crds --check
	$(PYTHON) -m hack.chart --check

.PHONY: test
test: test-tools ## Every test but the end-to-end ones; needs no root (at most 10 minutes once everything is cached)
	@mkdir -p $(REPORTS)
	$(PYTEST) tests --ignore=tests/e2e --ignore=tests/gitops --ignore=tests/docs $(PARALLEL) --junitxml=$(REPORTS)/test.xml

.PHONY: docs
docs: test-tools ## The documentation's site in out/docs, and every shell block that needs no node, run in a cluster of its own
	@mkdir -p $(REPORTS)
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict --quiet
	$(PYTEST) tests/docs --junitxml=$(REPORTS)/docs.xml

.PHONY: chart-test
chart-test: test-tools ## The Helm chart, deploy/, alerts and dashboard: real helm, kubectl, API server, promtool and Prometheus
	@mkdir -p $(REPORTS)
	$(PYTEST) tests/chart -n 2 --dist loadgroup --junitxml=$(REPORTS)/chart.xml

.PHONY: e2e
e2e: test-tools ## The built images on a real node: apply, disturb, resume, refuse, and the demo (root)
	@mkdir -p $(REPORTS)
	@$(PYTHON) -m hack.cluster build  # before any test's timeout starts to run
	$(PYTEST) tests/e2e/cluster --junitxml=$(REPORTS)/e2e-cluster.xml
	$(PYTEST) tests/e2e --ignore=tests/e2e/cluster --junitxml=$(REPORTS)/e2e.xml

.PHONY: gitops-programs
gitops-programs: setup
	@$(PYTHON) -m hack.gitops

.PHONY: e2e-gitops
e2e-gitops: test-tools gitops-programs ## A real Argo CD follows examples/10-argo-cd on the node; health, actions, Flux (root)
	@mkdir -p $(REPORTS)
	@$(PYTHON) -m hack.cluster build  # before any test's timeout starts to run
	$(PYTEST) tests/gitops --junitxml=$(REPORTS)/gitops.xml

.PHONY: soak
soak: test-tools ## The expensive proofs in full (hours): scenes of every length, histories, kills, frozen leaders, hostile bytes
	VR_TEST_SCENES=1200 $(PYTEST) tests/model/test_streaming.py -n 2
	VR_TEST_HISTORIES=10000 $(PYTEST) tests/simulation -n 2 -rP
	VR_TEST_KILLS=1000 $(PYTEST) tests/cluster/operator/test_kills.py -rP
	VR_TEST_FREEZES=40 $(PYTEST) tests/cluster/operator/test_replicas.py -k frozen
	VR_TEST_DEATHS=400 VR_TEST_S3_DEATHS=100 VR_TEST_RACES=40 $(PYTEST) tests/media/test_killed_anywhere.py -n 2
	VR_TEST_S3="moto seaweed minio" $(PYTEST) tests/storage/test_commit_killed.py --timeout 3000
	VR_TEST_MEMORY_FRAMES=300,3000 $(PYTEST) tests/media/test_memory.py -rP
	VR_TEST_FUZZ=20000 VR_TEST_FUZZ_SEED=$${RANDOM}0000 $(PYTEST) tests/fuzz -n 2 --timeout 36000

.PHONY: kueue
kueue: test-tools ## The operator with a real Kueue; with KUBECONFIG that of a cluster (CRDs of ours are applied to it)
	$(if $(KUBECONFIG),VR_TEST_KUEUE="$(KUBECONFIG)") $(PYTEST) tests/kueue

# ---- releases

# REGISTRY=…: push there. BASE_IMAGE=…: instead of the Debian made here. SOURCE_URL=…: the repository, for the labels.
.PHONY: images
images: setup ## Build both images, print what each layer weighs, write out/images/*.cdx.json (root; REGISTRY=… pushes)
	@$(PYTHON) -m hack.images $(if $(REGISTRY),--registry $(REGISTRY)) $(if $(BASE_IMAGE),--base-image $(BASE_IMAGE)) \
	  $(if $(SOURCE_URL),--source $(SOURCE_URL)) $(if $(DEBIAN_SNAPSHOT),--debian-snapshot $(DEBIAN_SNAPSHOT))

.PHONY: release-artifacts
release-artifacts: setup | $(UV) ## Wheel, source, chart, install.yaml, bills of materials and checksums in out/release (TAG=v… is checked)
	@UV=$(UV) $(PYTHON) -m hack.release $(if $(TAG),--tag $(TAG))

.PHONY: audit
audit: setup ## Known holes in the locked packages, by pip-audit; needs PyPI or OSV, and fails with a sentence without them
	@UV=$(UV) $(PYTHON) -m hack.audit

# ---- generated files

.PHONY: crds
crds: setup ## Write crds/*.yaml, their copies in the chart and in deploy/, and the reference pages from the Python models
	$(PYTHON) -m hack.crds
	$(PYTHON) -m hack.chart

.PHONY: chart
chart: setup ## Write the chart's README, its dashboard and deploy/install.yaml from the chart and hack/chart
	$(PYTHON) -m hack.chart

# ---- the development cluster

.PHONY: cluster-up
cluster-up: setup ## Start the development cluster (root); kubeconfig in .dev/cluster/kubeconfig
	@$(PYTHON) -m hack.cluster up

.PHONY: cluster-status
cluster-status: setup ## What runs, and where
	@$(PYTHON) -m hack.cluster status

.PHONY: cluster-down
cluster-down: setup ## Stop it and leave nothing behind: no process, mount or bridge
	@$(PYTHON) -m hack.cluster down
