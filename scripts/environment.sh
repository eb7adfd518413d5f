# Sourced by scripts/demo, scripts/test and scripts/check: makes or reuses .venv and sets $python.
# Usage: . scripts/environment.sh; make_environment [EXTRA]     EXTRA: an extra of pyproject.toml, such as dev
# TFAPP_TENSORFLOW=2.20 takes that release of TensorFlow instead of the pinned one, in .venv-tensorflow-2.20.

root=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd -P)

find_python() {
    for candidate in "${PYTHON:-}" python3 python3.11 python3.12 python3.13 python; do
        [ -n "$candidate" ] || continue
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
            >/dev/null 2>&1; then
            printf '%s\n' "$candidate"
            return 0
        fi
    done
    cat >&2 <<'END'
No suitable Python was found. tfapp needs Python 3.11, 3.12 or 3.13 with its venv module (TensorFlow has no
wheels for others). Install one of them (on Debian and Ubuntu: python3-venv too), or name it: PYTHON=/path/to/python3.12
END
    return 1
}

# The stamp tells what .venv was made from and for which folder, so that a second run starts in seconds.
environment_stamp() {
    "$python" - "$root" <<'END'
import hashlib, pathlib, sys
root = pathlib.Path(sys.argv[1])
digest = hashlib.sha256(f"{sys.version}\0{root}\0".encode("utf-8", "surrogateescape"))
for name in ("pyproject.toml", "constraints.txt"):
    digest.update((root / name).read_bytes())
print(digest.hexdigest())
END
}

make_environment() {
    extra=${1:-base}
    release=${TFAPP_TENSORFLOW:-}
    venv=$root/.venv${release:+-tensorflow-$release}
    python=$venv/bin/python
    stamps=$venv/tfapp-environment # a line for each extra: its name and the stamp
    case $extra in
        base) owner= ;; # every extra includes the base
        *) owner=$extra ;;
    esac
    if "$python" -c '' >/dev/null 2>&1; then
        stamp=$(environment_stamp) || return 1
        if grep -qF -- "$owner $stamp" "$stamps" 2>/dev/null; then
            return 0
        fi
    fi
    if [ -f "$venv/bin/activate" ] && [ ! -f "$stamps" ] && ! "$python" -m pip --version >/dev/null 2>&1; then
        echo "${venv##*/} has no pip and was made by something else; remove it, or add pip to it, and try again." >&2
        return 1
    fi
    # An interrupted ensurepip leaves a .venv without pip; a moved or copied one is still bound to its old folder.
    if ! grep -qF -- "$venv" "$venv/bin/activate" 2>/dev/null || ! "$python" -m pip --version >/dev/null 2>&1; then
        base=$(find_python) || return 1
        echo "Making the environment ${venv##*/} with $("$base" --version) ..." >&2
        rm -rf "$venv"
        "$base" -m venv "$venv" || return 1
    fi
    stamp=$(environment_stamp) || return 1
    echo "Installing tfapp and its libraries into ${venv##*/} (the first time about 1 GB to download) ..." >&2
    case $extra in
        base) target=$root ;;
        *) target="$root[$extra]" ;;
    esac
    pins=$root/constraints.txt
    if [ -n "$release" ]; then
        pins=$venv/constraints.txt
        grep -v '^tensor' "$root/constraints.txt" > "$pins"
        printf '%s==%s.*\n' tensorflow "$release" tensorflow-text "$release" >> "$pins"
    fi
    if ! "$python" -m pip install --quiet --disable-pip-version-check -c "$pins" -e "$target"; then
        echo "The installation failed; the lines above say why. Run the same command again to continue it." >&2
        return 1
    fi
    { grep -F -- " $stamp" "$stamps" 2>/dev/null || true; echo "$extra $stamp"; } > "$stamps.new"
    mv "$stamps.new" "$stamps"
}
