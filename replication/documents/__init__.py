"""How a document is laid down: protobuf messages, references, the reserved field, tombstones, plain values."""
