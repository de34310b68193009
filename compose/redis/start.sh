#!/bin/sh
# Starts Redis with its users. Their password comes from the secret file and goes, as a hash, into a file that lives in memory.
set -eu
umask 077
password=$(sed -e 's/^[[:space:]]*//' -e 's/[[:space:]]*$//' /run/secrets/redis_password)
if [ -z "$password" ]; then
  echo "secret redis_password: the file is empty; delete it and run make secrets" >&2
  exit 1
fi
hash=$(printf %s "$password" | sha256sum | cut -c 1-64)
sed "s/{password}/$hash/" /etc/redis/users.acl >/tmp/users.acl
exec redis-server /etc/redis/redis.conf --aclfile /tmp/users.acl --maxmemory "${REDIS_MEMORY_MB}mb"
