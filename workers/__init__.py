"""The processes of firefleet, and the edges where files, the environment and Google Cloud are touched.

`cli` is the command line; every command is a module of the same name. `config` reads what the core is given,
`logs` says where log lines go, `local` holds what stands in for Google Cloud on one machine.
"""
