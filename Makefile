# make run     installs what is missing and runs the demonstration
# make test    installs what is missing, for the tests too, and runs them all
# make soak    the same with a million malformed frames of each kind, ten million segments, all that takes minutes, and then
#              the tests of TCP and of real stacks with several workers, steered in each way
# make install the virtual environment and the shim over DPDK alone
# make clean   takes away all that these have made in this folder
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.PHONY: run test soak install clean FORCE
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

VENV := .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
# The C twins are built for the records and numbers of these kernels.
LAYOUTS := twin_layout batch connection counters flow_hash flow_table headers neighbours parse shaping tcp_options
INPUTS := pyproject.toml setup.py $(LAYOUTS:%=kernels/%.py) $(filter-out csrc/_%,$(wildcard csrc/*.c csrc/*.h csrc/*.py))

# What must be there, and the Debian package that has it.
TO_RUN := gcc=gcc make=make pkg-config=pkg-config ip=iproute2 ethtool=ethtool curl=curl nginx=nginx-light \
	dpdk-devbind.py=dpdk libdpdk=libdpdk-dev Python.h=python3-dev ensurepip=python3-venv
TO_TEST := dpdk-testpmd=dpdk-dev ping=iputils-ping nft=nftables iperf3=iperf3 sshd=openssh-server ssh=openssh-client tshark=tshark tcpdump=tcpdump \
	haproxy=haproxy slapd=slapd ldapsearch=ldap-utils ss=iproute2 redis-server=redis-server redis-cli=redis-tools openssl=openssl \
	psql=postgresql-client pg_ctlcluster=postgresql mosquitto=mosquitto mosquitto_pub=mosquitto-clients nghttp=nghttp2-client

# Tests that use the machine itself run in one process, those in memory in two others: see tests/conftest.py. On two cores that
# leaves no core idle while tests on the machine wait, or one process for another that compiles. The soak loads both by itself.
AT_ONCE := --numprocesses 3 --dist loadscope
TWO_AT_ONCE := --numprocesses 2 --dist loadscope

# Installs the packages of $(1) that are missing, as root on Debian; else says in a sentence what they are.
# nginx-light and openssh-server would start services: policy-rc.d forbids it while they are installed.
define install_packages
has() {
	case $$1 in
	libdpdk) pkg-config --exists libdpdk 2>/dev/null ;;
	Python.h) $(PYTHON) -c 'import os, sysconfig as s; os.stat(s.get_path("include") + "/Python.h")' 2>/dev/null ;;
	ensurepip) $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null ;;
	*) command -v $$1 >/dev/null ;;
	esac
}
missing=()
for need in $(1); do has $${need%=*} || missing+=($${need#*=}); done
if [ $${#missing[@]} -eq 0 ]; then
	:
elif [ $$(id -u) -ne 0 ] || ! command -v apt-get >/dev/null; then
	echo "==> Going on without some packages; as root on Debian: apt-get install $${missing[*]}" >&2
else
	echo "==> Installing Debian packages: $${missing[*]}"
	policy=/usr/sbin/policy-rc.d
	if [ ! -e $$policy ]; then
		trap "rm -f $$policy" EXIT
		printf '#!/bin/sh\nexit 101\n' > $$policy
		chmod 755 $$policy
	fi
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -q
	apt-get install -q -y --no-install-recommends libc6-dev "$${missing[@]}"
	missing=()
fi
mkdir -p $(VENV)
# Written only when it changes: what depends on it is then built again.
[ "$$(cat $@ 2>/dev/null || echo new)" = "$${missing[*]}" ] || echo "$${missing[*]}" > $@
endef

run: $(VENV)/installed
	@echo "==> Running the demonstration; Ctrl-C ends it"
	exec $(VENV)/bin/python -m pipeline run

test: $(VENV)/installed-for-tests
	@echo "==> Running all tests"
	exec $(VENV)/bin/python -m pytest -q $(AT_ONCE) tests

soak: $(VENV)/installed-for-tests
	@echo "==> Running all tests, with a million malformed frames of each kind and ten million segments of live connections"
	PIPELINE_SOAK=1 $(VENV)/bin/python -m pytest -q $(TWO_AT_ONCE) tests
	for steering in software port address rss; do
		echo "==> The tests of TCP with two workers, flow_steering = $$steering"
		PIPELINE_TEST_WORKERS=2:$$steering $(VENV)/bin/python -m pytest -q $(TWO_AT_ONCE) tests/test_tcp_*.py tests/test_splice_*.py
	done
	for workers in 2 3; do
		echo "==> The tests of real stacks with $$workers workers"
		BED_WORKERS=$$workers BED_DEVICES="af_packet tap af_xdp" $(VENV)/bin/python -m pytest -q \
			tests/test_proxy_*.py tests/test_path_*.py tests/test_exception_port.py
	done

install: $(VENV)/installed

FORCE:

$(VENV)/packages: FORCE
	@$(call install_packages,$(TO_RUN))

$(VENV)/packages-for-tests: FORCE | $(VENV)/packages
	@$(call install_packages,$(TO_TEST))

$(VENV)/bin/python:
	@echo "==> Making a virtual environment in $(VENV) with $(PYTHON)"
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed, this is " + sys.version) if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(INPUTS) $(VENV)/packages | $(VENV)/bin/python
	@echo "==> Installing Python packages and building the shim over DPDK"
	$(VENV)/bin/python -m pip install --disable-pip-version-check --editable .
	touch $@

$(VENV)/installed-for-tests: $(VENV)/installed | $(VENV)/packages-for-tests
	@echo "==> Installing the Python packages of the tests"
	$(VENV)/bin/python -m pip install --disable-pip-version-check --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info pipeline/_dpdk*.so pipeline/_twins*.so csrc/_*.c .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
