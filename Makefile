.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo test test-vm test-picamera2 test-arm64 test-tflite models eval bench lint format clean install uninstall deb test-deb

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup:  ## install what is missing: apt packages, .venv, Python packages
	@scripts/setup.sh demo

setup-dev:
	@scripts/setup.sh dev

demo: setup  ## run on the bundled clip, served at rtsp://127.0.0.1:8554/live (DEMO_SOURCE=camera, DEMO_SECONDS=20)
	@scripts/demo.sh

test: setup-dev  ## run the test suite
	.venv/bin/python -m pytest

test-vm: setup-dev  ## in virtual machines: a camera that is unplugged, a KMS display's pixels, a virtual webcam (needs qemu-system-x86, kmod, cpio, gcc)
	@tests/vm/run.sh v4l2
	@.venv/bin/python -m tests.vm.screen
	@tests/vm/run.sh loopback

test-picamera2: setup-dev  ## the real picamera2 on libcamera's test camera in a virtual machine (as root; needs debootstrap, gcc, too)
	@tests/vm/run.sh picamera2

test-deb:  ## the package installed, used, upgraded and purged in a clean chroot (needs root and debootstrap; after make deb)
	@tests/deb/run.sh

install:  ## the daemon as a service of this machine: sudo make install (docs/install.md)
	@scripts/install.sh

uninstall:  ## takes away what `make install` brought, but for the configuration
	@scripts/install.sh --remove

deb:  ## a Debian package for this machine's kind, in build/
	@scripts/deb/build.sh

eval: setup  ## mask quality on drawn sequences with exact masks (EVAL_DIR=... for others)
	.venv/bin/edge-seg eval $(EVAL_DIR)

bench: setup  ## what every stage costs on this machine
	.venv/bin/edge-seg bench

test-arm64: setup-dev  ## models, kernels and pure stages on emulated Pi 4 and Pi 5 processors (needs qemu-user-static, gcc-aarch64-linux-gnu)
	@tests/arm64/run.sh

test-tflite: setup-dev  ## the model tests with tflite-runtime instead of ai-edge-litert, in a venv of their own
	@scripts/test-tflite.sh

models: setup  ## make the int8 models anew from the published ones (needs npm; some minutes)
	sh models/recipe/make.sh

lint: setup-dev  ## ruff and mypy
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

format: setup-dev  ## let ruff format the code
	.venv/bin/ruff format .

clean:  ## remove what was built and installed here
	rm -rf .venv build *.egg-info edge_seg/*.so
