# make demo and make test work on a bare Debian 12 as root: they install what is missing.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CONFIG ?= $(CURDIR)/.run/config.toml
SECONDS ?= 60
PYTHON ?= python3
PREFIX ?= /usr/local
RELEASED = $(shell sed -n 's/^\#\# \[[0-9].*\] - //p' CHANGELOG.md | head -1)
# Each test of a service starts Python anew: without bytecode, half of its time is compiling.
unexport PYTHONDONTWRITEBYTECODE
# One more than there are cores: some of the tests wait.
PROCESSES := $(shell cores=$$(nproc) && echo $$((cores < 8 ? cores + 1 : 8)))
# Targets may run side by side: each remembers for itself what failed.
PYTEST = scripts/test $(BIN)/python --durations=25 -o cache_dir=.pytest_cache/$@

.PHONY: help demo test unit service beside alone lab roots pythons test-long fuzz mutate lint format run bench docs lock audit dist deb release checksums install clean
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

demo: $(READY) ## the lab, a real MTA with the milter, real mail: forecasts beside deliveries
	$(BIN)/python -m tests.demo

unit: $(READY) ## the tests without processes: what one runs all day
	$(PYTEST) -n $(PROCESSES) --dist worksteal tests/unit tests/project

service: beside alone ## the service in its own processes, real Redis and Valkey, a soak, fuzzing

beside: $(READY) roots ## of service: what may run side by side, also with other targets
	$(PYTEST) -n 3 --dist loadgroup -m "not alone" tests/service

alone: $(READY) roots ## of service: what measures, or uses all cores
	$(PYTEST) -m alone tests/service tests/soak

lab: $(READY) roots ## real MTAs and name servers: four labs side by side
	$(PYTEST) -n 4 --dist loadgroup tests/lab

# The lab waits for real servers most of the time: all else that may runs beside it.
test: $(READY) roots ## all of these: what a change has to pass; ALSO="pythons" beside them
	$(MAKE) -j2 --old-file=roots lab lint unit beside $(ALSO)
	$(MAKE) alone

roots: $(READY)
	@$(BIN)/python -m tests.lab build || [ "$${CI:-}" != true ]

# The unit tests compute and the services wait: side by side. What tools of others do is seen once.
pythons: $(READY) roots ## unit and service tests on each further Python that the package claims
	scripts/pythons $(VENV) -n 3 --dist worksteal -m "not (alone or once)" -k "not valkey" \
		tests/unit tests/service

test-long: $(READY) roots ## 200 kills, 200,000 messages with faults, 1,000 installations, all attacks, long fuzzing
	CRASH_KILLS=200 $(BIN)/python -m pytest tests/lab/test_crash.py
	SOAK_MESSAGES=200000 $(BIN)/python -m pytest tests/soak
	WORKER_DEATHS=300 $(BIN)/python -m pytest tests/service/test_hostile_peer.py --timeout 900
	STORM_SECONDS=300 $(BIN)/python -m pytest tests/lab/test_storm.py
	INSTALLATIONS=1000 $(BIN)/python -m pytest tests/lab/test_installations.py
	PACKAGE_RELEASES=12,13 PACKAGE_BUILDS=2 $(BIN)/python -m pytest tests/service/test_debian_package.py
	PACKAGE_RELEASES=12,13 ALERTS=shipped $(BIN)/python -m pytest tests/service/test_debian_postfix.py
	PYTHON_RELEASES=testing $(BIN)/python -m pytest tests/service/test_debian_python.py
	SLOW_DOMAINS=240 $(BIN)/python -m pytest tests/service/test_tarpits.py --timeout 600
	ATTACK_DOMAINS=200 $(BIN)/python -m pytest tests/unit/engine/test_third_parties.py
	CHECK_DOMAINS=1000 $(BIN)/python -m pytest tests/service/test_check_live.py
	FOLLOWED_RECIPIENTS=200000 $(BIN)/python -m pytest tests/service/test_audit_follow.py --timeout 1200
	LOG_MEGABYTES=4096 $(BIN)/python -m pytest tests/service/test_hostile_logs.py --timeout 1200
	$(BIN)/python -m tests.fuzz --seconds 600

fuzz: $(READY) ## every parser of foreign bytes below a fuzzer; SECONDS=N for each
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS)

mutate: $(READY) ## do tests notice a change in the pure parts? ARGS="--sample 80 --seed 1 MODULE…"
	$(BIN)/python -m tests.mutation $(ARGS)

lint: $(READY) ## style, types and the walls between the packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy requiretls_milter tests packaging/debian/relocate.py
	$(BIN)/lint-imports --no-cache --no-logo

format: $(READY) ## put the code into the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

run: $(READY) ## serve in the foreground; CONFIG=FILE, else sockets and state in .run
	@[ "$(CONFIG)" != "$(CURDIR)/.run/config.toml" ] || scripts/local-config $(CURDIR)/.run
	$(BIN)/requiretls-milter serve --config $(CONFIG)

bench: $(READY) ## what the milter costs, beside a plain one; ARGS="--quick --json ROW…"
	$(BIN)/python -m tests.bench $(ARGS)

docs: $(READY) ## write what is generated anew: pages of docs/, manual pages, completion, the dashboard
	$(BIN)/python -m requiretls_milter.config.manual > docs/configuration.md.new
	mv docs/configuration.md.new docs/configuration.md
	$(BIN)/python -m requiretls_milter.mirror.manual > docs/postfix-parameters.md.new
	mv docs/postfix-parameters.md.new docs/postfix-parameters.md
	$(BIN)/python -m tests.conformance > docs/conformance.md.new
	mv docs/conformance.md.new docs/conformance.md
	$(BIN)/python -m tests.monitoring.dashboard > monitoring/grafana/requiretls-milter.json.new
	mv monitoring/grafana/requiretls-milter.json.new monitoring/grafana/requiretls-milter.json
	$(BIN)/python -m requiretls_milter.manuals packaging $(RELEASED)

lock: $(READY) ## write the lock files anew: the deployed set and what builds it, with digests
	scripts/lock $(VENV)

audit: $(READY) ## known vulnerabilities of what is locked; exit 69 where no database answers
	$(BIN)/python scripts/audit $(BIN)/pip-audit

dist: $(READY) ## wheel and sdist, in dist/
	$(BIN)/python -m build --quiet --outdir dist .

deb: ## the Debian package for the release of this machine (12 or 13) and its SBOM, in dist/
	packaging/debian/build dist

release: dist deb ## all artefacts of a release in dist/, with checksums and an SBOM with licences
	$(MAKE) --no-print-directory checksums

checksums: ## of what is in dist/
	cd dist && sha256sum *.whl *.tar.gz *.deb *.cdx.json > SHA256SUMS

install: ## for packagers: PYTHON=python3 PREFIX=/usr DESTDIR=DIR, without what Python packages it needs
	$(PYTHON) -m pip install --quiet --no-deps --no-warn-script-location --root-user-action=ignore \
		--root=$(or $(DESTDIR),/) --prefix=$(PREFIX) .
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/lib/systemd/system systemd/*.service
	sed -i 's,/usr/local/bin/,$(PREFIX)/bin/,' $(DESTDIR)$(PREFIX)/lib/systemd/system/requiretls-milter*.service
	install -D -m 644 systemd/sysusers.d/requiretls-milter.conf \
		$(DESTDIR)$(PREFIX)/lib/sysusers.d/requiretls-milter.conf

clean: ## remove what make has made here
	rm -rf $(VENV) $(VENV)-3.* dist build .run .fuzz .mypy_cache .ruff_cache .import_linter_cache .pytest_cache .hypothesis *.egg-info
	find requiretls_milter tests -name __pycache__ -type d -prune -exec rm -r {} +

$(READY): pyproject.toml scripts/setup
	@scripts/setup $(VENV)
	@touch $@
