#!/bin/bash
# KAFKA_NODE_ID=1 becomes node.id=1, as in Apache's image; then the broker.
set -eu
properties=/opt/kafka/config/server.properties
env | sed -n 's/^KAFKA_//p' | while IFS='=' read -r name value; do
  echo "$(echo "$name" | tr 'A-Z_' 'a-z.')=$value"
done > $properties
export CLASSPATH='/opt/kafka/libs/*'
if [ ! -e "$KAFKA_LOG_DIRS/meta.properties" ]; then
  java kafka.tools.StorageTool format -t fewloop-stand-in-00001 -c $properties
fi
exec java -Xmx512m kafka.Kafka $properties
