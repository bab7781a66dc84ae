"""Several cores: processes that own sockets, TLS and parsing, beside the one that owns everything else."""
