#!/bin/sh
# From the npm package to the int8 models: sh models/recipe/make.sh [--help]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
venv=${RECIPE_VENV:-$here/../../build/recipe-venv}
if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
fi
"$venv/bin/python" -m pip install --quiet --requirement "$here/requirements.txt"
case " $* " in
    *" --tune "*) "$venv/bin/python" -m pip install --quiet --requirement "$here/requirements-tune.txt" ;;
esac
exec "$venv/bin/python" "$here/build.py" "$@"
