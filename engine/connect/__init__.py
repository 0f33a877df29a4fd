"""Sources outside of Kafka: files, line by line."""
