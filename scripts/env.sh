# Sourced by the scripts beside it: makes .venv in the repository root and installs byzopt into it.
# usage: . env.sh EXTRAS   (for instance dev or dev,flower; "" for none)

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
python=${PYTHON:-python3}
if ! "$python" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "byzopt needs Python 3.11 or newer as python3. Found: $("$python" --version 2>&1). Set PYTHON=/path/to/python." >&2
    exit 1
fi
if [ ! -x .venv/bin/python ] && ! "$python" -m venv .venv; then
    echo "Could not create .venv. On Debian and Ubuntu install the package python3-venv first." >&2
    exit 1
fi
. .venv/bin/activate

# Installing again is needed only when what is to be installed has changed.
stamp=".venv/.installed-${1:-core}"
if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ] || [ constraints.txt -nt "$stamp" ]; then
    echo "Installing byzopt into .venv (a minute or two, the first time) ..." >&2
    python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".${1:+[$1]}"
    touch "$stamp"
fi
