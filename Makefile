# The commands of pcipt's makers and users. `make demo` and `make test` need nothing but a checkout.

PYTHON  ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.ready
DEMO    ?= fixtures/sysfs/lab-remap-pvh fixtures/sysfs/lab-remap-pv
SHELL   := /bin/sh

# what `make mutate` changes (folders or files), how many places of it, and which; LEAST is a percentage that must die
MODULES ?= pcipt/engine
SAMPLE  ?= 40
SEED    ?= 1
comma   := ,

# where `make install` puts things
prefix  ?= /usr/local
UNITDIR ?= /etc/systemd/system

.PHONY: all demo test check bench laws topologies simulate fuzz fuzz-tools mutate oracle lab lab-matrix deb rpm sdist wheel install uninstall clean format

all: $(STAMP)

# prepare.sh: tools that pip cannot bring (a C compiler, Python's headers and its venv module). environment.sh: the
# environment and both C extensions. What apt and pip print goes to setup.log.
$(STAMP): pyproject.toml setup.py csrc/build.py $(wildcard csrc/*.c csrc/*.h csrc/*.cdef)
	@: > setup.log; PYTHON=$(PYTHON) sh scripts/prepare.sh
	@PYTHON=$(PYTHON) VENV=$(VENV) sh scripts/environment.sh
	@touch $@

demo: $(STAMP)
	@$(BIN)/python scripts/demo.py $(DEMO) --log demo.log

# Bytecode is kept below .venv, also where the environment says to keep none: else each worker and each pcipt that a
# test starts compiles everything anew.
test: $(STAMP)
	PYTHONDONTWRITEBYTECODE= PYTHONPYCACHEPREFIX='$(CURDIR)/$(VENV)/compiled' \
		$(BIN)/python -m pytest -q -n auto --dist worksteal --ignore=tests/lab tests

format: $(STAMP)
	$(BIN)/ruff format .

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py
	@CC='$(or $(CC),cc)' sh scripts/check-c.sh
	@sh scripts/check-units.sh

# What pcipt costs next to its peers: prints the table, writes docs/performance.md and its plot; exit 1 if a bound is
# missed. BENCH=--quick is small and judges nothing.
BENCH   ?=
bench: $(STAMP)
	$(BIN)/python -m bench $(BENCH)

# The five laws of the reconciliation on EXAMPLES random machines and histories each (tests/engine/test_laws.py): the
# same ones each time, or others with FRESH=1.
EXAMPLES ?= 1000
laws: $(STAMP)
	PCIPT_LAWS=$(EXAMPLES) PCIPT_FRESH=$(FRESH) $(BIN)/python -m pytest -q -n auto tests/engine/test_laws.py

# Random machines, changed as a workshop changes them: the hook of the initramfs and the resolver of the policy
# find the right function or none, and the same (tests/initramfs). TOPOLOGIES machines, or others with FRESH=1.
TOPOLOGIES ?= 10000
topologies: $(STAMP)
	PCIPT_TOPOLOGIES=$(TOPOLOGIES) PCIPT_FRESH=$(FRESH) $(BIN)/python -m pytest -q tests/initramfs/test_keep.py

# The whole daemon on simulated clock, kernel, Xen, disk and peers (tests/simulation): STEPS over eight seeds.
# One seed: .venv/bin/python -m tests.simulation SEED --steps N
simulate: $(STAMP)
	PCIPT_SIMULATION=$(STEPS) $(BIN)/python -m pytest -q -n auto tests/simulation

# What comes from outside, as bytes that nobody meant to send (tests/fuzz): TIME seconds for each target, or for those
# in TARGETS. With atheris (make fuzz-tools) it is led by coverage, the C decoders by libFuzzer if there is clang.
TIME    ?= 60
TARGETS ?=
fuzz: $(STAMP)
	$(BIN)/python -m tests.fuzz --time $(TIME) $(TARGETS)

fuzz-tools: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[fuzz]' --no-build-isolation \
		--config-settings editable_mode=compat

# A changed program may take all memory: the kernel then ends this first.
mutate: $(STAMP)
	@{ echo 1000 > /proc/self/oom_score_adj; } 2>/dev/null || true; \
	$(BIN)/python scripts/mutate.py --sample $(SAMPLE) --seed $(SEED) $(if $(LEAST),--least $(LEAST)) \
		$(subst $(comma), ,$(MODULES))

# Xen's own vPCI, built in user space from a git directory of Xen, beside the simulated one: the same random accesses.
# It holds the table of releases against that git as well. Without XEN_SOURCE it says that it is skipped.
XEN_SOURCE ?=
RELEASES   ?= 4.17.7 4.18.6 4.19.6 4.20.0 4.20.4 4.21.2 4.22.0
STEPS      ?= 20000
oracle: $(STAMP)
	$(BIN)/python -m tests.oracle.run $(XEN_SOURCE) --releases '$(RELEASES)' --steps $(STEPS) --seed $(SEED)

lab: $(STAMP)
	$(BIN)/python -m tests.lab.run

# Each scene in each of the eight cells of tests/lab/cell.py, or in CELLS, with a matrix at the end.
CELLS ?= all
lab-matrix: $(STAMP)
	$(BIN)/python -m tests.lab.run --cells '$(CELLS)'

# The Debian package, into dist/; nothing else is left behind.
deb:
	@sh scripts/build-deb.sh dist

# The RPMs, into dist/: one for each Python of a dom0 (packaging/pcipt.spec).
rpm: $(STAMP)
	@sh scripts/build-rpm.sh dist $(BIN)/python

# The source distribution, into dist/; it builds from its own content. setuptools warns of spellings in pyproject.toml
# that its older versions need.
sdist: $(STAMP)
	@PYTHONWARNINGS=ignore $(BIN)/python -m build --sdist --no-isolation > dist.log 2>&1 || { cat dist.log >&2; exit 1; }
	@rm -f dist.log; ls dist/*.tar.gz

wheel: $(STAMP)
	@PYTHONWARNINGS=ignore $(BIN)/python -m build --wheel --no-isolation > dist.log 2>&1 || { cat dist.log >&2; exit 1; }
	@rm -f dist.log; ls dist/*.whl

# Where there is neither Debian nor RPM: all that the packages install. It needs the distribution's packages cffi, attrs,
# structlog, pyroute2, setuptools, a C compiler and Python's headers, and no network; what is missing is named.
install:
	@DESTDIR='$(DESTDIR)' sh scripts/install.sh "$$(command -v $(PYTHON))" "$$(command -v $(PYTHON))" '$(prefix)' '$(UNITDIR)'

# Settings and what the service has written stay.
uninstall:
	rm -rf $(DESTDIR)$(prefix)/lib/pcipt $(DESTDIR)$(prefix)/bin/pcipt $(DESTDIR)$(prefix)/share/doc/pcipt
	rm -f $(DESTDIR)$(UNITDIR)/pcipt.service $(DESTDIR)$(UNITDIR)/pcipt.socket $(DESTDIR)/usr/lib/sysusers.d/pcipt.conf
	rm -f $(DESTDIR)$(UNITDIR)/pcipt-policy.service $(DESTDIR)$(UNITDIR)/pcipt-boot.service
	rm -rf $(DESTDIR)/usr/lib/pcipt/keep.sh $(DESTDIR)/usr/lib/pcipt/boot.sh $(DESTDIR)/usr/lib/dracut/modules.d/90pcipt
	cd $(DESTDIR)/usr/share/initramfs-tools && rm -f hooks/pcipt scripts/init-top/pcipt conf-hooks.d/pcipt
	rm -f $(DESTDIR)/usr/lib/tmpfiles.d/pcipt.conf $(DESTDIR)/usr/lib/systemd/catalog/pcipt.catalog
	cd $(DESTDIR)$(prefix)/share && rm -f man/man1/pcipt.1 man/man5/pcipt.toml.5 man/man8/pcipt-daemon.8 \
		bash-completion/completions/pcipt zsh/site-functions/_pcipt fish/vendor_completions.d/pcipt.fish

clean:
	rm -rf $(VENV) build dist setup.log demo.log *.egg-info pcipt/*.so pcipt/_decode.c pcipt/_files.c pcipt/_hypervisor.c
