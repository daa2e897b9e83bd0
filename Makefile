# Set-up, training and checks. Everything is installed into .venv; nothing outside this folder changes.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help train spark test lint docs clean java

BIN := .venv/bin
CORE := .venv/.core
SPARK := .venv/.spark
DEV := .venv/.dev
PACKAGING := setup.cfg pyproject.toml constraints.txt

# A pytest marker expression, or "all".
TESTS ?= not slow and not cluster and not data

RUN := --net cifar10_quick.prototxt --solver cifar10_quick_short_solver.prototxt --data data/cifar10
TRAINED := runs/cifar10_quick/cifar10_quick_short_iter_2500.solverstate
FULL := --data data/cifar10 --out runs/cifar10_quick_full

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' Makefile

train: $(TRAINED)  ## train cifar10_quick in one process, on a short schedule (no Java needed)
	@echo
	@echo "Trained: $(TRAINED). To train again, remove $(dir $(TRAINED))"
	@sed -n 's/.*"kind": "test".*"accuracy": \([0-9.]*\).*/Test accuracy reached: \1/p' \
	    $(dir $(TRAINED))cifar10_quick_short_metrics.jsonl | tail -n 1
	@echo "The full schedule, about 75 % on CIFAR-10, is these two commands:"
	@echo "  $(BIN)/train --solver cifar10_quick_solver.prototxt $(FULL)"
	@echo "  $(BIN)/train --solver cifar10_quick_solver_lr1.prototxt $(FULL) \\"
	@echo "      --snapshot runs/cifar10_quick_full/cifar10_quick_iter_4000.solverstate"

$(TRAINED): | $(CORE)
	$(BIN)/torrefy data auto --out data/cifar10
	$(BIN)/train $(RUN) --out $(dir $@)

spark: java $(SPARK)  ## the same net and solver on local Spark: SparkNet, then DeepSpark (needs Java 17)
	$(BIN)/torrefy data auto --out data/cifar10
	$(BIN)/train $(RUN) --workers 2 --strategy sparknet --out runs/cifar10_quick_sparknet
	$(BIN)/train $(RUN) --workers 2 --strategy deepspark --out runs/cifar10_quick_deepspark

test: $(DEV)  ## run the quick tests; TESTS=all runs every test, TESTS=cluster only those on Spark
	$(BIN)/pytest $(if $(filter-out all,$(TESTS)),-m "$(TESTS)")

lint: $(DEV)  ## ruff, formatting, mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(DEV)  ## write the pages that are generated: docs/layers.md, docs/solvers.md
	$(BIN)/python -m docs.generate

clean:  ## remove .venv, caches and build products; data/ and runs/ stay
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(CORE): EXTRAS :=
$(CORE): INSTALLED := $(CORE)
$(SPARK): EXTRAS := [spark]
$(SPARK): INSTALLED := $(CORE) $(SPARK)
$(DEV): EXTRAS := [spark,draw,plot,tensorboard,watch,compare,dev]
$(DEV): INSTALLED := $(CORE) $(SPARK) $(DEV)

$(CORE) $(SPARK) $(DEV): $(BIN)/python $(PACKAGING)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e ".$(EXTRAS)"
	@touch $(INSTALLED)

# Debian and Ubuntu ship ensurepip, which venv needs, in a package of its own.
$(BIN)/python:
	@for python in python3.13 python3.12 python3.11 python3; do \
	    if $$python -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        echo "Setting up .venv with $$($$python --version)"; \
	        exec $$python -m venv --clear .venv; \
	    fi; \
	done; \
	echo "torrefy needs Python 3.11 or newer with venv: none of python3.13, python3.12, python3.11" \
	    "and python3 on the PATH is one. On Debian or Ubuntu: apt install python3 python3-venv" >&2; \
	exit 1

java:
	@"$${JAVA_HOME:+$$JAVA_HOME/bin/}java" -version >/dev/null 2>&1 || { \
	    echo "make spark needs Java 17: no java on the PATH, and JAVA_HOME names none." \
	        "On Debian or Ubuntu: apt install openjdk-17-jre-headless" >&2; exit 1; }
