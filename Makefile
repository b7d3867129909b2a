# The project's commands. GNU make 3.81 or newer, a POSIX shell, Python 3.11 or newer; nothing else.
# Everything is installed into .venv, and nothing outside this folder is touched.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo build test lint bench crash-test soak down clean lock
SHELL := /bin/sh

BIN := .venv/bin
# Written last, so that an installation that was cut short is made again.
READY := .venv/.ready
# More arguments for the command behind a target: make test ARGS="-k roles".
ARGS :=

# An environment whose folder was moved, or whose Python is gone, is made again, too.
SOUND := grep -qxF "made in $(CURDIR)" .venv/.made 2>/dev/null && $(BIN)/python -c '' 2>/dev/null
MENDED := $(shell { $(SOUND); } || rm -f $(READY))

# Where the command is not installed, or broken, the server is stopped by its own pid file (a stale
# one may name any process by now, hence the look at the name).
STOP = if $(BIN)/python -c 'import stageline.cli' 2>/dev/null; then \
    $(BIN)/stageline down; \
else \
    pid=$$(head -n 1 .stageline/postgres/postmaster.pid 2>/dev/null || true); \
    case "$$(ps -o comm= -p "$${pid:-0}" 2>/dev/null)" in \
        *postgres*) kill -INT "$$pid"; while kill -0 "$$pid" 2>/dev/null; do sleep 1; done ;; \
    esac; \
fi

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

demo: $(READY) ## install, start PostgreSQL, load the sample data, build, show the numbers
	@$(BIN)/stageline demo $(ARGS)

build: $(READY) ## check what was loaded and build the KPI tables
	@$(BIN)/stageline build $(ARGS)

test: $(READY) ## run all tests, on a database of their own; one of them: ARGS="-k roles"
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder $(ARGS)

# Goes on to the end, so that one run shows everything there is to mend.
lint: $(READY) ## run all static checks
	@failed=''; \
	check() { \
	    title=$$1; shift; printf '\n== %s\n' "$$title"; "$$@" || failed="$$failed, $${title%%:*}"; \
	}; \
	check 'ruff: mistakes and style of the Python code' $(BIN)/ruff check .; \
	check 'ruff format: layout of the Python code' $(BIN)/ruff format --check .; \
	check 'mypy: types' $(BIN)/mypy; \
	check 'import-linter: which package may import which' $(BIN)/lint-imports; \
	check 'yaml keys: misspelt keys and blank descriptions in dbt YAML' \
	    $(BIN)/python tests/lint/yaml_keys.py; \
	check 'engine sql: models that only one engine understands' \
	    $(BIN)/python tests/lint/engine_sql.py; \
	check 'tracked files: addresses and paths of the machine they were made on' \
	    $(BIN)/python tests/lint/tracked_files.py; \
	check 'hadolint: the image' $(BIN)/hadolint deploy/Dockerfile; \
	check 'compose: docker-compose.yml' \
	    $(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml; \
	check 'kubernetes: deploy/kubernetes' \
	    $(BIN)/kubernetes-validate --strict --quiet deploy/kubernetes/*.yaml; \
	check 'systemd: deploy/systemd' $(BIN)/python tests/lint/systemd_units.py; \
	check 'dbt parse: warnings are errors' $(BIN)/python tests/lint/dbt_offline.py parse; \
	check 'sqlfluff: style of the SQL' $(BIN)/python tests/lint/dbt_offline.py lint; \
	if [ -n "$$failed" ]; then printf '\nlint failed: %s\n' "$${failed#, }"; exit 1; fi; \
	printf '\nlint passed\n'

bench: $(READY) ## run the benchmarks one after the other
	@set -e; for each in benchmarks/*.py; do \
	    if [ ! -e "$$each" ]; then echo 'There is no benchmark in benchmarks/.'; exit 0; fi; \
	    printf '\n== %s\n' "$$each"; $(BIN)/python "$$each" $(ARGS); \
	done

crash-test: $(READY) ## kill receiver, worker and PostgreSQL at random, and look for losses
	@$(BIN)/python -m tests.crash $(ARGS)

soak: $(READY) ## kill what `stageline run` keeps running, for an hour; shorter: ARGS="--minutes 5"
	@$(BIN)/python -m tests.crash.soak $(ARGS)

down: ## stop the embedded PostgreSQL; its data stays
	@$(STOP)

# For root the data may lie outside the checkout, where the account that runs PostgreSQL can get in.
# The file beside it names the checkout that it belongs to: a copy of that one must not remove it.
# The programs that lie there are shared: they go with the last checkout that has data there.
clean: down ## stop PostgreSQL and remove .venv, its data, reports and build results
	@kept=$$(readlink .stageline/postgres || true); kept=$${kept%/postgres}; \
	case "$$kept" in \
	    *..*) ;; \
	    /var/lib/stageline/?*) \
	        if [ "$$(cat "$$kept/home")" = "$$(cd .stageline && pwd -P)" ]; then rm -rf "$$kept"; fi ;; \
	esac
	@if [ "$$(id -u)" = 0 ] && ! ls /var/lib/stageline/*/home >/dev/null 2>&1 \
	    && ! ps -eo args= | grep -q '^/var/lib/stageline/postgresql-'; then \
	    rm -rf /var/lib/stageline/postgresql-*; rmdir /var/lib/stageline 2>/dev/null || true; \
	fi
	@if [ -f .env ]; then \
	    rest=$$(sed '/^# >>> stageline/,/^# <<< stageline/d' .env); \
	    if [ -n "$$rest" ]; then printf '%s\n' "$$rest" > .env; else rm .env; fi; \
	fi
	@rm -rf .stageline output target logs .venv ./*.egg-info \
	    .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -type d -name __pycache__ -prune -exec rm -rf {} +

PIN = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --no-annotate --no-header --extra traces pyproject.toml

# The second lock is what the image has: the same packages without those for development.
lock: $(READY) ## pin the packages of pyproject.toml again; newer ones: ARGS=--upgrade
	@$(PIN) --extra dev -o requirements.lock $(ARGS)
	@$(PIN) --constraints requirements.lock -o requirements.runtime.lock --upgrade
	@if grep -nE '://|^-| @ ' requirements.lock requirements.runtime.lock; then \
	    echo 'error: a lock must name packages by name, version and hash only.'; exit 1; \
	fi
	@echo "requirements.lock: $$(grep -c == requirements.lock) packages," \
	    "$$(grep -c == requirements.runtime.lock) of them in the image"

$(READY): requirements.lock pyproject.toml
	@set -e; \
	if ! { cmp -s requirements.lock .venv/.lock 2>/dev/null && $(SOUND); }; then \
	    python=''; \
	    choose='import sys; sys.version_info >= (3, 11) and print(sys._base_executable)'; \
	    for each in python3 python3.14 python3.13 python3.12 python3.11; do \
	        python=$$("$$each" -c "$$choose" 2>/dev/null || true); \
	        if [ -n "$$python" ]; then break; fi; \
	    done; \
	    if [ -z "$$python" ]; then \
	        echo 'error: no Python 3.11 or newer on the PATH. Install one first.' >&2; exit 1; \
	    fi; \
	    if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	        echo "error: $$python cannot make virtual environments." \
	            'On Debian and Ubuntu: apt-get install python3-venv' >&2; exit 1; \
	    fi; \
	    { $(STOP); } >/dev/null 2>&1 || true; \
	    echo "Installing $$(grep -c == requirements.lock) packages into .venv with" \
	        "$$("$$python" --version): about a minute, once."; \
	    "$$python" -m venv --clear .venv; \
	    $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-input \
	        --no-deps --require-hashes -r requirements.lock; \
	    cp requirements.lock .venv/.lock; \
	    echo "made in $(CURDIR)" > .venv/.made; \
	fi; \
	$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-input \
	    --no-deps --no-build-isolation -e .; \
	cp .venv/.made $(READY)
