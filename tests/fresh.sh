#!/bin/sh
# The README's two commands on a fresh machine: a bare Debian with Python, make and a shell, and a new user.
#
#   sh tests/fresh.sh bookworm trixie     Python 3.11 and 3.13, `make fresh`
#
# Needs root, Debian's debootstrap, 6 GB of disk and about ten minutes a system. The systems are made in TMPDIR and
# removed afterwards. pip's configuration is copied, so that they use your mirror.
set -eu
cd "$(dirname "$0")/.."
: "${DEBIAN_MIRROR:=http://deb.debian.org/debian}"
PACKAGES=python3,python3-venv,make,ca-certificates
USER_NAME=newcomer

# In a mount namespace of its own nothing stays mounted after the script ends.
if [ -z "${FRESH_UNSHARED:-}" ]; then
    FRESH_UNSHARED=1 exec unshare --mount --propagation private sh "tests/$(basename "$0")" "$@"
fi

copy_in() { # copy_in PATH: make a file or folder visible at the same path in the new system
    if [ -d "$1" ]; then
        mkdir -p "$root$1"
        mount --bind "$1" "$root$1"
    elif [ -f "$1" ]; then
        mkdir -p "$root$(dirname "$1")"
        cp "$1" "$root$1"
    fi
}

pip_settings() { # print pip's settings from files and variables as KEY=VALUE, one a line
    python3 -m pip config list | sed -n "s/^[^.]*\.\([a-z-]*\)='\(.*\)'$/\1=\2/p" | sort -u
}

as_newcomer() { # as_newcomer COMMAND: run it in the project, with only pip's settings in the environment
    chroot --userspec="$USER_NAME" "$root" /usr/bin/env -i HOME="/home/$USER_NAME" PATH=/usr/bin:/bin LANG=C.UTF-8 \
        PIP_CONFIG_FILE=/etc/fresh-pip.conf sh -ec "cd ~/project; $1"
}

timed() { # timed NAME COMMAND: run it as the newcomer and print its seconds, or its output if it fails
    begun=$(date +%s)
    if ! as_newcomer "$2" >"$root/output" 2>&1; then
        cat "$root/output" >&2
        echo "fresh.sh: $suite: $1 failed" >&2
        exit 1
    fi
    printf '%-9s %-40s %4d s   %s\n' "$suite" "$1" $(($(date +%s) - begun)) "$(tail -n 1 "$root/output")"
}

root=
trap 'cd /; [ -z "$root" ] || { umount --recursive "$root" 2>/dev/null || :; rm -rf --one-file-system "$root"; }' EXIT
for suite; do
    root=$(mktemp -d)
    chmod 755 "$root"
    mount --bind "$root" "$root" # so that one umount covers everything in it
    debootstrap --variant=minbase --include="$PACKAGES" "$suite" "$root" "$DEBIAN_MIRROR" >/dev/null
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    cp /etc/resolv.conf /etc/hosts "$root/etc/"
    { echo '[global]' && pip_settings | sed 's/=/ = /'; } >"$root/etc/fresh-pip.conf"
    for path in $(pip_settings | sed 's/^[^=]*=//; s/file:\/\///g'); do
        case $path in /*) copy_in "${path%/simple}" ;; esac
    done
    chroot "$root" useradd --create-home --shell /bin/sh "$USER_NAME"
    git clone --quiet . "$root/home/$USER_NAME/project"
    chroot "$root" chown -R "$USER_NAME:" "/home/$USER_NAME/project"
    timed 'make demo' 'make demo'
    timed 'make test' 'make test'
    timed 'by hand, without make' '
        make clean
        python3 -m venv .venv
        .venv/bin/python -m pip install --quiet --requirement requirements.txt
        . .venv/bin/activate
        python3 -m sample.make --directory demo/sample
        MASKS=1 DATA=demo/data OUT=demo/dataset python3 -m sample.serve demo/sample -- sh make_dataset.sh'
    umount --recursive "$root"
    rm -rf --one-file-system "$root"
    root=
done
