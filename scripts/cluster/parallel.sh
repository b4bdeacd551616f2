#!/bin/sh
# A list of images over machines that share a folder, by GNU parallel and ssh: two processes on each of two machines.
parallel --sshlogin 2/line1,2/line2 --workdir "$PWD" --retries 3 \
  infer batch --model model.safetensors --list images.txt --out results --shard {}/4 ::: 0 1 2 3 &&
  infer batch merge results
