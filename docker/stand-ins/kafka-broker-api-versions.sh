#!/bin/bash
# What Apache's image has under this name, as far as compose.yaml uses it: `--bootstrap-server HOST:PORT` takes clients.
exec 3<> "/dev/tcp/${2%:*}/${2#*:}"
