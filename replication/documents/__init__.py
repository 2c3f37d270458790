"""How a document is stored: protobuf messages, references, the reserved field, tombstones, plain values."""
