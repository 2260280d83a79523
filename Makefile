# toehold: the one driver, for GNU make and bmake alike. The work is done by rust/xtask;
# on FreeBSD the modules build from sys/modules.

# What make may be given; xtask and the demonstration read it from the environment.
PASS = SYSDIR='$(SYSDIR)' KERNBUILDDIR='$(KERNBUILDDIR)' KERNCONF='$(KERNCONF)' \
	KERNOPTS='$(KERNOPTS)' KRUSTC='$(KRUSTC)' \
	FILE='$(FILE)' DEMO='$(DEMO)' SEED='$(SEED)' OFFSET='$(OFFSET)' SIZE='$(SIZE)' \
	BUFFERS='$(BUFFERS)' CACHE='$(CACHE)' CONNS='$(CONNS)'

XTASK = sh rust/xtask/bootstrap.sh && $(PASS) cargo run --quiet --package xtask --

help:
	@echo 'make setup   install the tools and FreeBSD headers a build needs (Debian, as root)'
	@echo 'make kmod    build toehold.ko and t5sim.ko for FreeBSD 14 and 15 into target/kmod'
	@echo '             with SYSDIR=<tree>/sys: for that FreeBSD source tree instead'
	@echo 'make shim    compile the C halves only'
	@echo 'make symbols SYSDIR=<tree>/sys        who defines what the modules leave undefined'
	@echo 'make check-standin SYSDIR=<tree>/sys  hold sys/standin against that tree'
	@echo 'make test    setup, kmod, then every test and every planted fault'
	@echo 'make planted bring known faults back one by one: a test must see each'
	@echo 'make demo    setup, kmod, then send FILE=<path> through both modules'
	@echo 'make check   formatting, circles of files, planted faults apply, lints, documentation, gates, manual pages'
	@echo 'make native  run the rules of sys/modules (the build on FreeBSD) as far as they go here'
	@echo 'make generated  renew the bindings and checksums that sys/modules keeps'
	@echo 'make fmt     format the Rust sources'
	@echo 'make clean   remove what was built; what was downloaded stays'

setup kmod shim symbols check-standin native generated test planted check demo fmt:
	@$(XTASK) $@

clean:
	rm -rf target/kmod target/native target/rust-kmod target/debug target/release target/tmp target/planted

.PHONY: help setup kmod shim symbols check-standin native generated test planted check demo fmt clean
