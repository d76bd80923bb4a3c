#!/bin/sh
# Build the sdist, the wheel from the sdist, install the wheel into a fresh environment and test it from outside the
# checkout, so that nothing is found that was not packaged, and with no more than pytest needs, so that no dependency is
# missing.
set -eu
python=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m build --sdist --outdir "$work" . >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
mkdir "$work/source"
tar -xzf "$work"/o1_reason-*.tar.gz -C "$work/source" --strip-components 1
"$python" -m build --wheel --outdir "$work" "$work/source" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
"$python" -m venv "$work/venv"
wheel=$(ls "$work"/*.whl)
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$wheel"
cd "$work"
venv/bin/o1-reason solve "4 5 6 10"
venv/bin/python -m pip install --quiet --disable-pip-version-check pytest pytest-asyncio pytest-timeout hypothesis uvicorn
cp -r source/tests source/graphs source/examples source/docs source/README.md source/CHANGELOG.md source/langgraph.json .
mkdir elsewhere && cd elsewhere
unit=../tests/unit
../venv/bin/python -m pytest -q -p no:cacheprovider --import-mode=importlib -o asyncio_mode=auto -o timeout=120 \
    -o pythonpath="../tests ../tests/unit" ../tests/test_packaging.py $unit/test_context.py \
    $unit/test_cli.py $unit/test_embedded.py $unit/test_export.py $unit/test_langchain.py \
    $unit/test_openai_chat.py $unit/test_resolve.py $unit/test_view.py
