# Everything a newcomer or an operator types. `make help` lists it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
# The tests start hundreds of processes: without compiled files each of them would compile the application anew.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: help run test prove lab bench check lock sbom psql redis-cli clean

help: ## List these commands
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1	\2/p' Makefile | expand -t 20

run: $(VENV)/run ## Serve on a bare machine: a real Redis and Postgres, demo data, http://127.0.0.1:8000 (PORT=)
	@$(BIN)/fourways serve

test: $(VENV)/dev ## Run the tests, with a sample of the long proofs
	@$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

prove: $(VENV)/dev ## Run the long proofs in full: kills by the dozen, 100,000 order lines
	@$(BIN)/pytest -m prove

lab: $(VENV)/run ## Play a workload, or your own traffic, through every strategy (TRACE=access.log)
	@$(BIN)/fourways lab compare $(if $(TRACE),--trace "$(TRACE)",--workload ycsb-b)

bench: $(VENV)/bench ## Measure the speed beside peers, in turns (ONLY=hit_over_http)
	@$(BIN)/python -m tests.benchmarks $(if $(ONLY),--only $(ONLY))

check: $(VENV)/dev ## Run the static checks
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

lock: $(VENV)/dev ## Choose the newest versions of all dependencies, and write down their hashes
	@for extra in runtime embedded dev bench; do \
	  printf 'hatchling\neditables\n' | $(BIN)/uv pip compile --quiet --universal --upgrade --generate-hashes \
	    --python-version 3.11 --no-header --no-annotate \
	    $$([ $$extra = runtime ] || echo "--extra $$extra --constraint locks/runtime.txt") \
	    pyproject.toml - --output-file locks/$$extra.txt || exit 1; \
	done
	@for group in sbom kubernetes; do \
	  $(BIN)/uv pip compile --quiet --universal --upgrade --generate-hashes --python-version 3.11 --no-header \
	    --no-annotate --group pyproject.toml:$$group --output-file locks/$$group.txt || exit 1; \
	done

sbom: $(VENV)-sbom/made ## Write sbom.json: the packages that the service runs with, in CycloneDX's format
	@# A list of packages says nothing of what needs what. The tool warns of that.
	@PYTHONWARNINGS=ignore $(VENV)-sbom/bin/cyclonedx-py requirements locks/runtime.txt --pyproject pyproject.toml \
	  --output-reproducible --output-file sbom.json
	@echo "sbom.json lists what locks/runtime.txt names"

psql: $(VENV)/run ## Open psql on the running Postgres
	@$(BIN)/python -m app.embedded --directory "$${FOURWAYS_DIRECTORY:-.fourways}" psql

redis-cli: $(VENV)/run ## Open redis-cli on the running Redis
	@$(BIN)/python -m app.embedded --directory "$${FOURWAYS_DIRECTORY:-.fourways}" redis-cli

clean: ## Remove the environment, the data and the caches
	@# Where only a link to the data could lie in .fourways, the data goes with it.
	@for link in .fourways/postgres .fourways/postgres/sockets .fourways/redis/sockets; do \
	  [ ! -L $$link ] || rm -rf "$$(readlink -f $$link)"; \
	done
	@rm -rf $(VENV) $(VENV)-sbom $(VENV)-kubernetes sbom.json .fourways .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -prune -exec rm -rf {} +

# An environment is made once for each lock: what is installed is what is locked, and nothing is resolved.
$(VENV)/run: locks/embedded.txt pyproject.toml
	$(call install,locks/embedded.txt)
	@touch $@

$(VENV)/dev: locks/dev.txt pyproject.toml
	$(call install,locks/dev.txt)
	@touch $@ $(VENV)/run

$(VENV)/bench: locks/bench.txt pyproject.toml
	$(call install,locks/bench.txt)
	@touch $@ $(VENV)/dev $(VENV)/run

# Tools apart from the others: what lists the packages is not among them, and only CI compares schemas.
$(VENV)-sbom/made $(VENV)-kubernetes/made: $(VENV)-%/made: locks/%.txt
	@echo "Installing what $< names into $(@D)"
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $<
	@touch $@

define install
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, and $(PYTHON) is " + sys.version.split()[0] + ": name another one, as in `make PYTHON=python3.12 run`.")'
@echo "Installing what $(1) names into $(VENV)"
@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $(1)
@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
endef
