#!/usr/bin/env bash
# Installs what the testbed in namespaces needs (docs/testbed.md): ip and tc, sshd, ssh, sudo.
# Only what is missing, from Debian's or Ubuntu's packages, as root. No service is started: a
# testbed runs its own sshd, in its own namespaces.
set -euo pipefail

packages=()
need() { # need COMMAND PACKAGE
  PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null || packages+=("$2")
}
need ip iproute2
need tc iproute2
need ssh-keygen openssh-client
need sshd openssh-server
need sudo sudo

if [ ${#packages[@]} -eq 0 ]; then
  echo "testbed: all that it needs is installed"
  exit 0
fi
if ! command -v apt-get >/dev/null; then
  echo "testbed: install ${packages[*]} with this system's package manager (no apt-get here)" >&2
  exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "testbed: needs root to install ${packages[*]}: sudo $0" >&2
  exit 1
fi

echo "testbed: installing ${packages[*]}"
export DEBIAN_FRONTEND=noninteractive
install_all() { apt-get install --yes --quiet --no-install-recommends "${packages[@]}"; }
# What Debian runs after the installation asks for the runlevel, and starts nothing in this one.
RUNLEVEL=1 install_all || { apt-get update --quiet && RUNLEVEL=1 install_all; }
if [[ " ${packages[*]} " == *" openssh-server "* ]] && [ -d /run/systemd/system ]; then
  systemctl disable --now ssh.service ssh.socket 2>/dev/null || true
  echo "testbed: the new SSH service of this machine is off; only its program is needed"
fi
