"""What the operator creates, as pure functions: names, the request, the snapshot and the Job. No I/O, no clock."""
