#!/bin/sh
# llama.cpp's own server, built from the sources that llama-cpp-python carries: sh scripts/setup-llamacpp.sh FOLDER
# Ten CPU minutes: C++ is compiled without optimisation, which is fast enough for a tiny model.
set -eu
folder=$1
[ -x "$folder/llama-server" ] && exit 0
python=${PYTHON:-python3}
"$python" -m venv "$folder/tools"
"$folder/tools/bin/python" -m pip --disable-pip-version-check install --quiet cmake ninja
"$folder/tools/bin/python" -m pip --disable-pip-version-check download --quiet --no-deps --no-binary llama-cpp-python \
    --dest "$folder/sdist" llama-cpp-python==0.3.36
mkdir -p "$folder/source"
tar -xzf "$folder"/sdist/*.tar.gz -C "$folder/source" --strip-components 1
PATH="$(cd "$folder/tools/bin" && pwd):$PATH"
cmake -S "$folder/source/vendor/llama.cpp" -B "$folder/build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DBUILD_SHARED_LIBS=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_OPENSSL=OFF \
    -DCMAKE_CXX_FLAGS_RELEASE=-O0 -DCMAKE_C_FLAGS_RELEASE=-O1 >"$folder/build.log"
ninja -C "$folder/build" llama-server >>"$folder/build.log"
cp "$folder/build/bin/llama-server" "$folder/llama-server"
rm -rf "$folder/source" "$folder/build" "$folder/sdist" "$folder/tools"
