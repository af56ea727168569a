# The two commands to remember. Everything else is `cargo xtask`.
#
#   make run    an instance of your own in ./instance, with the first exec answered
#   make test   everything that must hold before a change lands
#
# Both install the Debian packages they lack, as root or through a sudo that asks for no password;
# anybody else is told the line to type. A machine that has them makes no call to apt-get at all.

SHELL := /bin/bash

# A C compiler for the TLS library (aws-lc, built without cmake), PAM's header files, and the BIOS of
# virtual machines.
RUN_PACKAGES := gcc libc6-dev libpam0g-dev seabios
# A C++ compiler for libFuzzer and the header; the clients that the gateway and the C library are proven against, a super-server, a
# compiler for Java (ecj: the smallest there is), a checker of memory; firmware and guests for machines; what builds our
# packages, and a Debian to install them in; what puts faults into system calls, a clock and a disk (strace, patchelf,
# e2fsprogs).
TEST_PACKAGES := binutils curl default-jre-headless dpkg-dev e2fsprogs ecj g++ grub-common grub-pc-bin grub-rescue-pc hydra iproute2 libhyperic-sigar-java libio-socket-ssl-perl medusa memtest86+ mmdebstrap mtools netcat-openbsd nmap openbsd-inetd openssl patator patchelf perl python3-prometheus-client qemu-utils strace systemd-container valgrind

.PHONY: help run test

help:
	@sed -n 's/^#   //p' Makefile

run:
	@$(call cargo)
	@$(call packages,$(RUN_PACKAGES)) || exit 1
	@exec cargo xtask run

test:
	@$(call cargo)
	@$(call packages,$(RUN_PACKAGES)) || exit 1
	@$(call packages,$(TEST_PACKAGES)) || echo "make: going on without them: tests that need them say SKIPPED" >&2
	@exec cargo xtask test

define cargo
command -v cargo >/dev/null || { \
  echo "make: there is no cargo in PATH. Install Rust (https://rustup.rs, or your distribution's rustup)," >&2; \
  echo "      then open a new shell, or: . ~/.cargo/env" >&2; exit 1; }
endef

# $(call packages,NAMES): installs those that are missing, if it may; fails when some stay missing.
define packages
( command -v dpkg-query >/dev/null || { echo "make: not a Debian system: needed are the likes of $(1)" >&2; exit 0; }; \
  missing=(); \
  for name in $(1); do \
    [ "$$(dpkg-query -W -f='$${db:Status-Status}' $$name 2>/dev/null)" = installed ] || missing+=($$name); \
  done; \
  [ $${#missing[@]} -eq 0 ] && exit 0; \
  if [ "$$(id -u)" = 0 ]; then as=(); \
  elif sudo -n true 2>/dev/null; then as=(sudo -n); \
  else echo "make: packages are missing. Please run: apt-get install $${missing[*]}" >&2; exit 1; fi; \
  echo "make: installing $${missing[*]}" >&2; \
  $${as[@]} apt-get update -q </dev/null >&2 && \
  $${as[@]} env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $${missing[@]} </dev/null >&2 )
endef
