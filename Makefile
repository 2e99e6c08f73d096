# The commands of pcipt's makers and users. `make demo` and `make test` need nothing but a checkout.

PYTHON  ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.ready
DEMO    ?= fixtures/sysfs/lab-pv
SHELL   := /bin/sh

# what `make mutate` changes (folders or files), how many places of it, and which; LEAST is a percentage that must die
MODULES ?= pcipt/engine
SAMPLE  ?= 40
SEED    ?= 1
comma   := ,

# where `make install` puts things (a venv with Debian's own Python packages, a link, the units)
prefix  ?= /usr/local
UNITDIR ?= /etc/systemd/system

.PHONY: all demo test check laws simulate fuzz fuzz-tools mutate oracle lab lab-matrix deb sdist wheel install uninstall clean format

all: $(STAMP)

# Tools that pip cannot bring: a C compiler, Python's headers and its venv module.
$(STAMP): pyproject.toml setup.py csrc/build.py $(wildcard csrc/*.c csrc/*.h csrc/*.cdef)
	@PYTHON=$(PYTHON) sh scripts/prepare.sh
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade setuptools wheel cffi
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation \
		--config-settings editable_mode=compat -e '.[test,check]'
	@touch $@

demo: $(STAMP)
	@BIN=$(BIN) sh scripts/demo.sh $(DEMO)

test: $(STAMP)
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

# The five laws of the reconciliation on EXAMPLES random machines and histories each (tests/engine/test_laws.py): the
# same ones each time, or others with FRESH=1.
EXAMPLES ?= 1000
laws: $(STAMP)
	PCIPT_LAWS=$(EXAMPLES) PCIPT_FRESH=$(FRESH) $(BIN)/python -m pytest -q -n auto tests/engine/test_laws.py

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

# The source distribution, into dist/; it builds from its own content.
sdist: $(STAMP)
	$(BIN)/python -m build --sdist --no-isolation

wheel:
	$(PYTHON) -m pip wheel --quiet --no-deps --no-build-isolation --no-index --wheel-dir dist .

# Where there is no Debian: installs into a virtual environment. It needs the distribution's packages cffi, attrs,
# structlog, pyroute2, pip, setuptools, wheel, a C compiler and Python's headers, and no network. A wheel in dist/ made by
# the same Python is used as it is.
install:
	@ls dist/pcipt-*.whl >/dev/null 2>&1 || $(MAKE) wheel
	$(PYTHON) -m venv --system-site-packages --without-pip $(DESTDIR)$(prefix)/lib/pcipt
	$(DESTDIR)$(prefix)/lib/pcipt/bin/python -m pip install --quiet --no-index --no-deps --force-reinstall dist/pcipt-*.whl
	install -d $(DESTDIR)$(prefix)/bin $(DESTDIR)$(UNITDIR) $(DESTDIR)/usr/lib/sysusers.d $(DESTDIR)/usr/lib/tmpfiles.d
	ln -sf $(prefix)/lib/pcipt/bin/pcipt $(DESTDIR)$(prefix)/bin/pcipt
	sed 's|/usr/bin/pcipt|$(prefix)/bin/pcipt|' systemd/pcipt.service > $(DESTDIR)$(UNITDIR)/pcipt.service
	install -m 644 systemd/pcipt.socket $(DESTDIR)$(UNITDIR)/pcipt.socket
	sed 's|/usr/bin/pcipt|$(prefix)/bin/pcipt|' systemd/pcipt-policy.service > $(DESTDIR)$(UNITDIR)/pcipt-policy.service
	sed 's|/usr/bin/pcipt|$(prefix)/bin/pcipt|' systemd/pcipt-boot.service > $(DESTDIR)$(UNITDIR)/pcipt-boot.service
	sh scripts/install-initramfs.sh '$(DESTDIR)'
	install -m 644 systemd/pcipt.sysusers $(DESTDIR)/usr/lib/sysusers.d/pcipt.conf
	install -m 644 systemd/pcipt.tmpfiles $(DESTDIR)/usr/lib/tmpfiles.d/pcipt.conf
	@test -n '$(DESTDIR)' || { systemd-sysusers pcipt.conf; systemd-tmpfiles --create pcipt.conf; systemctl daemon-reload; } || true

uninstall:
	rm -rf $(DESTDIR)$(prefix)/lib/pcipt $(DESTDIR)$(prefix)/bin/pcipt $(DESTDIR)$(UNITDIR)/pcipt.service
	rm -rf $(DESTDIR)/usr/lib/pcipt/keep.sh $(DESTDIR)/usr/lib/dracut/modules.d/90pcipt $(DESTDIR)$(UNITDIR)/pcipt-policy.service $(DESTDIR)$(UNITDIR)/pcipt-boot.service
	cd $(DESTDIR)/usr/share/initramfs-tools && rm -f hooks/pcipt scripts/init-top/pcipt conf-hooks.d/pcipt
	rm -f $(DESTDIR)$(UNITDIR)/pcipt.socket $(DESTDIR)/usr/lib/sysusers.d/pcipt.conf $(DESTDIR)/usr/lib/tmpfiles.d/pcipt.conf

clean:
	rm -rf $(VENV) build dist *.egg-info pcipt/*.so pcipt/_decode.c pcipt/_hypervisor.c
