"""Any bytes into any reader: a value or a PosedaError, in bounded time and memory. `make fuzz` runs the long way."""
