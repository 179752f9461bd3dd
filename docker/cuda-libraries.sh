#!/bin/sh
# Copies what ONNX Runtime's CUDA provider ($1) loads of CUDA and cuDNN into a folder ($2), and fails where this
# image's versions are not those that it was linked with. The driver's libcuda.so.1 comes from the host.
set -eu
provider=$1
target=$2
mkdir -p "$target"

missing=$(ldd "$provider" | awk '/not found/ && $1 != "libcuda.so.1" && $1 !~ /^libonnxruntime/ {print $1}')
if [ -n "$missing" ]; then
  echo "$provider was linked with other libraries than this image has:" $missing >&2
  exit 1
fi

# Those that it names, and those that it opens by name while it runs.
linked=$(ldd "$provider" | awk '/libcu(blas|blasLt|dart|rand|fft|dnn)/ {print $3}')
cuda=$(dirname "$(echo "$linked" | grep /libcublas.so)")
opened=$(find "$cuda/" /usr/lib -name 'libcudnn*.so.9' -o -name 'libcufft.so.1?' -o -name 'libnvrtc.so.1?' \
  -o -name 'libnvrtc-builtins.so.1?.?')
for library in $linked $opened; do
  cp -L "$library" "$target/"
done
for name in libcublas libcublasLt libcudart libcurand libcufft libcudnn libnvrtc; do
  ls "$target/$name".so.* > /dev/null 2>&1 || { echo "this image has no $name" >&2; exit 1; }
done
