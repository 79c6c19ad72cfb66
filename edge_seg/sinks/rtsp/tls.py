"""The certificate of an RTSP server: read, or made once and kept.

GLib's TLS does the encryption. It cannot make certificates, so the `openssl` program does: it is on every Raspberry Pi
OS and Jetson, where a Python library for it would be 4 MB more to install and to keep up to date.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from edge_seg import gstreamer
from edge_seg.errors import ConfigError, SinkError
from edge_seg.sinks.rtsp.settings import TlsSettings

log = logging.getLogger(__name__)

VALID_DAYS = 3650
OPENSSL_TIMEOUT_S = 30


def load_certificate(settings: TlsSettings, address: str) -> Any:
    """The Gio.TlsCertificate, made first where the settings ask for it and the files are not there. `address` is
    what the server listens on: a certificate that is made names it. Raises ConfigError or SinkError."""
    _, gio, glib = gstreamer.load("Gio", "GLib")
    if not gio.TlsBackend.get_default().supports_tls():
        raise SinkError(
            "outputs.tls: GLib has no TLS here: run `sudo apt install glib-networking`", permanent=True
        )
    certificate, key = Path(settings.certificate), Path(settings.key)
    if settings.self_signed and not certificate.exists() and not key.exists():
        make_self_signed(certificate, key, address)
    try:
        return gio.TlsCertificate.new_from_files(str(certificate), str(key))
    except glib.Error as error:
        raise ConfigError(
            f"outputs.tls: {certificate} and {key} are not a certificate and its key in PEM: {error.message}"
        ) from error


def make_self_signed(certificate: Path, key: Path, address: str) -> None:
    """Makes a P-256 key, readable by its owner only, and a certificate for this host's names. Raises SinkError."""
    names = {"localhost", socket.gethostname()}
    addresses = {"127.0.0.1", "::1"} | ({address} if address not in ("0.0.0.0", "::") else set())
    san = ",".join([*(f"DNS:{name}" for name in sorted(names)), *(_san(one) for one in sorted(addresses))])
    try:
        # Beside their places first: a half-made pair is never found there.
        with tempfile.TemporaryDirectory(dir=key.parent) as folder:
            made_key, made_certificate = Path(folder, "key.pem"), Path(folder, "certificate.pem")
            done = subprocess.run(
                [
                    "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-keyout", made_key, "-out", made_certificate, "-days", str(VALID_DAYS),
                    "-subj", f"/CN={socket.gethostname()}", "-addext", f"subjectAltName={san}",
                ],
                capture_output=True, text=True, timeout=OPENSSL_TIMEOUT_S, check=False,
            )  # fmt: skip
            if done.returncode != 0:
                raise SinkError(
                    f"outputs.tls: openssl made no certificate: {done.stderr.strip()}", permanent=True
                )
            made_key.chmod(0o600)
            os.replace(made_key, key)
            os.replace(made_certificate, certificate)
    except FileNotFoundError as error:
        if error.filename == "openssl":
            raise SinkError("outputs.tls: run `sudo apt install openssl`", permanent=True) from error
        raise SinkError(f"outputs.tls.key: there is no folder {key.parent}", permanent=True) from error
    except subprocess.TimeoutExpired as error:
        raise SinkError(f"outputs.tls: openssl took more than {OPENSSL_TIMEOUT_S} s") from error
    except OSError as error:
        raise SinkError(
            f"outputs.tls: {certificate} and {key} cannot be written: {error.strerror}", permanent=True
        ) from error
    log.info("made a self-signed certificate, %s, valid for %d days", certificate, VALID_DAYS)


def _san(name: str) -> str:
    return f"IP:{name}" if name.replace(".", "").isdigit() or ":" in name else f"DNS:{name}"
