#!/bin/sh
# Runs SlimFit's GPU benchmark from its bundle: unpacks Node and Dawn into a temporary folder, looks for Vulkan, says what is missing, and starts.
#   ./run.sh bench --seconds 540 | conformance | parity [--precision mixed] | adapters
set -u
here=$(cd "$(dirname "$0")" && pwd)
say() { echo "run.sh: $*" >&2; }

home=$(mktemp -d "${TMPDIR:-/tmp}/slimfit-bundle.XXXXXX") || exit 1
trap 'rm -rf "$home"' EXIT
trap 'exit 130' INT TERM
mkdir -p "$home/dist/$(cat "$here/platform")"
gzip -dc "$here/node.gz" > "$home/node" && gzip -dc "$here/dawn.node.gz" > "$home/dist/$(cat "$here/platform")/dawn.node" || { say "cannot unpack into $home (120 MB): set TMPDIR to a folder with room"; exit 1; }
chmod +x "$home/node"
cp "$here"/app/* "$home/"
for f in peers golden; do [ -d "$here/$f" ] && cp -R "$here/$f" "$home/$f"; done
if ! "$home/node" --version > /dev/null; then
  say "the bundled Node does not start here: it needs glibc and libstdc++6, and a temporary folder that programs may be run from (set TMPDIR)"
  exit 1
fi

# The first file of that name among the libraries of the system.
library() {
  { IFS=:; for d in ${LD_LIBRARY_PATH:-}; do [ -e "$d/$1" ] && echo "$d/$1"; done; unset IFS
    for d in /usr/lib/x86_64-linux-gnu /usr/lib/aarch64-linux-gnu /usr/lib64 /usr/lib /lib64 /usr/local/lib /usr/local/nvidia/lib64 /usr/local/nvidia/lib; do [ -e "$d/$1" ] && echo "$d/$1"; done
    for c in /sbin/ldconfig /usr/sbin/ldconfig; do [ -x $c ] && $c -p | while read -r name rest; do [ "$name" = "$1" ] && echo "${rest##*=> }"; done; done
  } 2> /dev/null | { read -r first && echo "$first"; }
}

if ! loader=$(library libvulkan.so.1); then
  if [ -e "$here/lib/libvulkan.so.1" ]; then
    loader="$here/lib/libvulkan.so.1"
    LD_LIBRARY_PATH="$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    export LD_LIBRARY_PATH
  else
    loader=none
    say "there is no Vulkan loader: install libvulkan1 (Debian, Ubuntu) or vulkan-loader (Fedora)"
  fi
fi
say "Vulkan loader: $loader"

# Whether WebGPU sees a device of the kind that is wanted.
kind=${SLIMFIT_WEBGPU_ADAPTER:-hardware}
sees_gpu() { "$home/node" "$home/run.mjs" adapters 2> "$home/adapters.err" | { while read -r line; do case $line in *"\"kind\":\"$kind\""*) exit 0 ;; esac; done; exit 1; }; }

if [ -n "${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}" ]; then
  say "Vulkan driver, as the environment says: ${VK_DRIVER_FILES:-$VK_ICD_FILENAMES}"
elif sees_gpu; then
  say "Vulkan driver: the system's own"
else
  # A container may have NVIDIA's libraries without the file that names them, or without X11, which the GLX one needs and the EGL one does not.
  found=
  for name in libGLX_nvidia.so.0 libEGL_nvidia.so.0; do
    lib=$(library $name) || continue
    icd="$home/$name.json"
    echo "{ \"file_format_version\": \"1.0.1\", \"ICD\": { \"library_path\": \"$lib\", \"api_version\": \"1.3.0\" } }" > "$icd"
    export VK_DRIVER_FILES="$icd" VK_ICD_FILENAMES="$icd"
    if sees_gpu; then
      found=$icd
      say "Vulkan driver: $lib, by a driver file of our own"
      break
    fi
    unset VK_DRIVER_FILES VK_ICD_FILENAMES
    say "$lib gives no GPU$(ldd "$lib" 2> /dev/null | while read -r l; do case $l in *'not found'*) echo "; missing: ${l%% *}" ;; esac; done)"
  done
  if [ -z "$found" ]; then
    say "no GPU: $(cat "$home/adapters.err")"
    [ -e /dev/nvidiactl ] && say "there is an NVIDIA device, but no Vulkan driver that works: in a container, NVIDIA_DRIVER_CAPABILITIES must hold 'graphics' beside 'compute'; outside, install libnvidia-gl of the driver's version"
  fi
fi

"$home/node" "$home/run.mjs" "$@"
