#!/usr/bin/env bash
# Makes resnet18-imagenet.safetensors, the teacher that is built in, from two files of the NuGet package
# Microsoft.ML.DnnImageFeaturizer.ResNet18 0.23.1, which is under the MIT licence (see NOTICE):
#
#   rdpp/builtin/make_imagenet.sh FOLDER
#
# FOLDER is tools/DnnImageModels of the unpacked package, with ResNet18Onnx/ResNet18.onnx and
# ResNetPrepOnnx/ResNetPreprocess.onnx. It needs bin/train. The first step, from ONNX to float32, takes the preprocessing into the first layer and leaves layer4 and
# the classifier out; the second one rounds to half precision.
#
# The file in the repository came from another program's first step, with the same arithmetic, and from this second one:
#
#   rdpp/builtin/make_imagenet.sh --half FILE    FILE: the float32 tensors, here SHA-256 a1e172c07efef8d0a1d2360b726e7d87...
set -euo pipefail
source "$(dirname "$0")/../../scripts/common.sh"
case "$#${1:-}" in
2--half | 1[!-]*) ;;
*) fail 2 "FOLDER or --half FILE is needed; see --help" ;;
esac
from=$(realpath "${!#}")
cd "$(dirname "$0")/../.."

if [ $# = 1 ]; then
  # As many digits of the files' SHA-256 as are known.
  check() {
    [[ $(sha256sum "$1" | cut -d' ' -f1) == $2*$3 ]] || fail 1 "$1 is another file: its SHA-256 is not $2...$3"
  }
  network=$from/ResNet18Onnx/ResNet18.onnx preprocess=$from/ResNetPrepOnnx/ResNetPreprocess.onnx
  check "$network" e2552f19 8d
  check "$preprocess" 84bf8def 04
  from=build/resnet18-imagenet.float32.safetensors
  bin/train teacher --onnx "$network" --preprocess "$preprocess" --out "$from" --store fp32 --overwrite
fi
go run ./rdpp/builtin/half "$from" rdpp/builtin/resnet18-imagenet.safetensors \
  'NuGet package Microsoft.ML.DnnImageFeaturizer.ResNet18 0.23.1, MIT licence'
